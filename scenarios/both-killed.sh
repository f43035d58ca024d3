# 1/1/2: the leader and the worker are killed at once, five times, by tasks that take down the machine on which both live.
#
# Breaks:     leader and worker, by SIGKILL while the worker executes; the backup leads, a new worker and a new backup come.
# Must hold:  each execution has a greater fencing token than the one before. The backup saw the worker vanish while it
#             stood by, so each crash counts: the task with a crash limit of 2 is dead after the second, the one with 3
#             after the third.
# Takes:      about 20 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 2 1 --allow exec
round=1

# crash: kills both at once; what the worker had started ends with it, as it would with the machine. Others come.
crash() {
    local leader=m$round worker=w$round
    signal "$leader" KILL
    signal "$worker" KILL
    ended "$leader" 2>/dev/null
    ended "$worker" 2>/dev/null
    round=$((round + 1))
    master "m$((round + 1))"
    worker "w$round" --allow exec
    until_true "m$round leads" leads "m$round"
    until_true "m$((round + 1)) stands by" stands_by "m$((round + 1))"
}
# dead_after CRASHES JOB: so often, and no oftener; whoever asks is told.
dead_after() {
    local n
    witnessed "$2" 1 15 --crash-limit "$1"
    for ((n = 1; n <= $1; n++)); do
        until_true "execution $n of $2 begins" begun_at_least "$2" "$n"
        check "execution $n of $2 has a greater fencing token than any before" tokens_grow
        crash
    done
    until_true "its client ends" has_ended "$2"
    ended "$2"
    check "its client ends with 1 (exit code $exit_code)" test "$exit_code" = 1
    check "and was told that the task is dead" test "$(outcomes "$work/$2.out" dead)" = 1
    check "$1 crashes are recorded" eval "client list --dead -o json | grep -c '\"crashes\":$1[,}]'"
    check "the task is explained" eval "client explain last | grep -c 'dead after $1 attempts: its worker was lost'"
    check "it was begun $1 times" test "$(begun "$2")" = "$1"
    client forget last >/dev/null
    check "and is forgotten" tree_is_clean
}
dead_after 2 twice
dead_after 3 thrice
audited 0 2
