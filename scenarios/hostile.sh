# 9/7/2: bad neighbours, full machines and wrong clocks, all at once, beside a job that must not suffer.
#
# Breaks:     a neighbour on the same ZooKeeper leaves unreadable, oversized and senseless znodes, a persistent
#             candidate with the lowest number, and a worker that takes everything; one worker lacks descriptors, one a
#             temporary directory; handlers block and panic; programs leave others behind; two clients read large
#             results at once; a task's znode is deleted by hand; thousands of tasks are cancelled; a master, a worker
#             and the client are an hour off; the leader stops.
# Must hold:  the job is done, each task once, within 1.5 times the time that it takes without all that; the leader names each
#             culprit once; the auditor finds what was done by hand, and nothing else.
# Takes:      about 60 s.

export HERDSMAN_SESSION_TIMEOUT=10s # as people have it: nobody is lost here
faketime=$("$here/faketime" 2>>"$work/faketime.log") || true
check "there is libfaketime on this machine (else: apt-get install libfaketime)" test -e "$faketime"
# off OFFSET COMMAND...: its process's clock is so far off.
off() {
    local -x LD_PRELOAD=$faketime FAKETIME=$1 DONT_FAKE_MONOTONIC=1
    "${@:2}"
}
# good NAME [MEANWHILE]: 240 tasks of a second, and how long they took, in ms, as their client says.
good() {
    witnessed "$1" 240 1 --max-attempts 3 --backoff 100ms..1s --job-timeout 10m
    until_true "$1 has begun" begun_at_least "$1" 1
    "${2:-true}"
    done_by "$1" 240
    took_ms=$(sed -n 's/^240 tasks: .* in \([0-9]*\)\.\([0-9]*\) s .*/\1\20/p' "$work/$1.log")
}
# neighbour COMMAND...: does or undoes a deed, and waits until that is done.
neighbour() {
    noted neighbour "$*"
    echo "$*" >&"$neighbour_in"
    until_true "the neighbour has done: $*" grep -qx "$*" "$work/neighbour.out"
}
long=$((1000000 + $$)) # a length of time that nobody else sleeps
deeds=(unreadable candidate garbage fat greedy)

herd 1 3 --allow exec
off -1h master m2
until_true "m2 stands by" stands_by m2
good before
alone_ms=$took_ms

mkfifo "$work/neighbour.in"
"$here/zookeeper" java "$here/Neighbour.java" "$HERDSMAN_ZOOKEEPER" <"$work/neighbour.in" >"$work/neighbour.out" 2>"$work/neighbour.log" &
pids[neighbour]=$!
exec {neighbour_in}>"$work/neighbour.in"
TMPDIR=$work/nowhere worker homeless --allow exec
worker poor --allow exec
until_true "poor is registered" registered poor
prlimit --pid "${pids[poor]}" --nofile=24 # as if others had taken the rest
terminate w3
off +1h worker w4 --allow exec
"$bin/examples/rude" </dev/null >"$work/rude.out" 2>"$work/rude.log" &
pids[rude]=$!
until_true "the rude worker is registered" registered rude
until_true "w4 is registered" registered w4
for deed in "${deeds[@]}"; do neighbour begin "$deed"; done

# Everything that goes wrong while the job runs.
wrong() {
    submit blocked --kind block --data 8 --count 4 --wait -o json
    submit panicked --kind panic --count 4 --wait -o json
    submit parents --kind exec --count 8 --timeout 20s --wait -o json -- sh -c "sleep $long & setsid sleep $long & exit 0"
    head -c 400000 /dev/zero | tr '\0' x >"$work/large"
    local large nobody abyss
    large=$(client submit --kind echo --count 200 --data "@$work/large" -o quiet)
    start reader1 client results "$large" --keep -o quiet
    start reader2 client results "$large" --keep -o quiet
    abyss=$(client submit --kind abyss --count 5000 --data 0 -o quiet)
    nobody=$(client submit --kind nobody --count 2000 --data 0 -o quiet)
    submit robbed --kind nobody --count 3 --wait -o json
    until_true "three tasks wait" eval "client tree --limit 5000 | grep -A3 '^  robbed-' | grep -c ' 0000000002'"
    terminate m1
    until_true "m2 leads" leads m2
    "$here/zookeeper" cli delete "/tasks/$(job robbed)/0000000001" --dir "$work/zookeeper" >>"$work/zookeeper.log" 2>&1
    client cancel "$nobody" >/dev/null
    client cancel "$abyss" >/dev/null
    client cancel "$(job robbed)" >/dev/null
    ended reader1
    check "one who reads large results beside another ends with 0 (exit code $exit_code)" test "$exit_code" = 0
    ended reader2
    check "and so does the other (exit code $exit_code)" test "$exit_code" = 0
    local id
    for id in "$large" "$nobody" "$abyss"; do client forget "$id" >/dev/null; done
}
good during wrong
check "the job took $took_ms ms, and $alone_ms ms without all that: at most 1.5 times as long" \
    test "$took_ms" -le $((alone_ms * 3 / 2))
check "no attempt of it was counted anew" test "$(attempts "$work/during.out" 1)" = 240
done_by blocked 4
check "handlers that block cost no session: each ran once" test "$(attempts "$work/blocked.out" 1)" = 4
ended panicked
check "handlers whose tasks panic fail" test "$(outcomes "$work/panicked.out" dead)$(outcomes "$work/panicked.out" failed)" = 04
check "and their worker lives" registered rude
done_by parents 8
check "nothing that a program left behind outlives its task" eval "! pgrep -f '^sleep $long\$'"
ended robbed
check "who was robbed of a task is told, and ends with 1 (exit code $exit_code)" test "$exit_code" = 1
check "it was lost by hand" grep -q 'lost by hand' "$work/robbed.out"

for culprit in /tasks/secret-0badcafe /workers/secret-0badcafe \
    /master/old-0badcaff-0000000000 /tasks/garbage-0badcb00; do
    check "the leader named $culprit once" test "$(grep -c " WARN .* path=\"$culprit\"" "$work/m2.log")" = 1
done

for deed in "${deeds[@]}"; do neighbour end "$deed"; done
exec {neighbour_in}>&-
until_true "the tree is clean" tree_is_clean
check "the tree is clean" tree_is_clean
planted=$(printf 'ephemeral %.0s' {1..13})one-end
audited $((480 + 4 + 8 + 200)) $((4 + 5000 + 2000 + 3)) $((4 + 8 + 200))
