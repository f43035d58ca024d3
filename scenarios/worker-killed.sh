# 1/2/1: a worker is killed, and only the session timeout tells.
#
# Breaks:     a worker, by SIGKILL while both execute.
# Must hold:  when its session expires its tasks are completed by the other, as second attempts.
# Takes:      about 10 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 1 2 --allow exec --slots 2
witnessed work 12 1
until_true "both execute, two tasks each" begun_at_least work 4
kill_hard w1
check "at first nobody can tell that w1 is dead" registered w1
done_by work 12
check "the two that w1 had begun took two attempts" test "$(attempts "$work/work.out" 2)" = 2
audited 12
check "14 executions in all" test "$(grep -c ^begin "$work/witness")" = 14
