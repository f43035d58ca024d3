# 1/2/2: the line between one process and ZooKeeper fails in every way, one process after another.
#
# Breaks:     for the leader, a worker and the client in turn: first, while thousands of tasks are submitted at once,
#             replies to large writes are lost; then, while a few tasks come steadily, replies are lost after the write
#             was applied, replies are swallowed, the line is slow, and it is cut for a short time; for the leader also
#             for longer than the session.
# Must hold:  every write takes effect once; a cut that ends in time costs nobody the session; nothing is lost; fencing
#             tokens grow.
# Takes:      about 30 s.

export HERDSMAN_SESSION_TIMEOUT=2s
for name in leader-line worker-line client-line; do line "$name"; done
master m1 --zookeeper "${line_to[leader-line]}"
until_true "m1 leads" leads m1
master m2
until_true "m2 stands by" stands_by m2
worker w1 --allow exec --zookeeper "${line_to[worker-line]}"
worker w2 --allow exec
until_true "w1 is registered" registered w1
until_true "w2 is registered" registered w2
for who in leader worker client; do
    steer "$who-line" cut-replies 1,2,4,7 over 1000
    submit "many-$who" --kind echo --count 2000 --wait -o json --zookeeper "${line_to[client-line]}"
    done_by "many-$who" 2000
    check "though replies to large writes of the $who were lost" true
done

witnessed red 250 0.1 --rate 12 --zookeeper "${line_to[client-line]}"
until_true "tasks execute" begun_at_least red 10

progress() {
    local then
    then=$(begun red)
    more() { begun_at_least red $((then + 4)); }
    until_true "work goes on after: $1" more
}
for who in leader worker client; do
    for _ in 1 2 3; do
        steer "$who-line" cut-reply
        progress "a reply to the $who was lost"
    done
    check "work went on after replies to the $who were lost" true
    steer "$who-line" delay 100
    progress "the $who's line is slow"
    steer "$who-line" mend
    progress "the $who's line is mended"
    steer "$who-line" drop-replies
    sleep 0.5 # shorter than the session
    steer "$who-line" mend
    progress "replies to the $who were swallowed for a while"
    steer "$who-line" cut
    sleep 0.5 # shorter than the session
    steer "$who-line" mend
    progress "the $who was cut off for a while"
    check "work went on after the $who's line was slow, mute, and cut" true
done
check "m1 still leads: no cut was longer than the session" leads m1
steer leader-line cut
until_true "m2 leads" leads m2
progress "the leader was cut off for good"
steer leader-line mend
until_true "m1 stands by" stands_by m1
done_by red 250
check "each execution had a greater fencing token than the one before" tokens_grow
audited 6250 0 6000
