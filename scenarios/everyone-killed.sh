# 2/2/2: everybody is killed at once, then masters and workers are started again.
#
# Breaks:     every process but ZooKeeper, by SIGKILL in the middle of the work.
# Must hold:  nothing that was submitted is lost; a new herd completes it, and new clients collect it. Whatever is executed
#             again has a greater fencing token, though nobody is left who saw the first execution.
# Takes:      about 12 s.

export HERDSMAN_SESSION_TIMEOUT=2s
master m1
master m2
worker w1 --allow exec
worker w2 --allow exec
until_true "w1 is registered" registered w1
until_true "w2 is registered" registered w2
until_true "somebody leads" eval 'leads m1 || leads m2'
witnessed red 30 0.5
witnessed blue 30 0.5
until_true "red's tasks are submitted and execute" begun_at_least red 2
sealed() { client status | grep "^job      $1-" | grep -cv 'not sealed' >/dev/null; }
until_true "red is sealed" sealed red
until_true "blue is sealed" sealed blue
for name in m1 m2 w1 w2 red blue; do kill_hard "$name"; done

master m3
worker w3 --allow exec
worker w4 --allow exec
until_true "m3 leads, once the dead have expired" leads m3
for name in red blue; do
    id=$(job "$name")
    check "$id is completed by the new herd" client wait "$id"
    client results "$id" -o json >>"$work/found"
done
cat "$work/red.out" "$work/blue.out" >>"$work/found" # what the killed clients had received before
check "each of the 60 outcomes was received, by a killed client or a new one" test "$(distinct "$work/found")" = 60
check "the jobs are gone from the tree" tree_is_clean
check "each execution of a task had a greater fencing token than the one before" tokens_grow
audited 60
