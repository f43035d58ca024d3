# 1/2/1: a worker lags past its session, and completes its task too late.
#
# Breaks:     a worker, by SIGSTOP for three session timeouts while it executes, then SIGCONT.
# Must hold:  another worker completes the task; the late completion has no effect; the worker comes back as a new one.
# Takes:      about 10 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 1 1 --allow exec --slots 1
witnessed task 1 3
until_true "w1 executes the task" begun_at_least task 1
pause w1 # the program that it started runs on, and ends while its worker lags
worker w2 --allow exec
until_true "w2 executes the task" begun_at_least task 2
done_by task 1
check "w2 committed it" test "$(by "$work/task.out" w2)" = 1
check "as a second attempt" test "$(attempts "$work/task.out" 2)" = 1
resume w1
until_true "w1 is back under a new id" registered w1
check "w1 found its session over" grep -q 'worker w1 begins anew with a new session' "$work/w1.log"
check "and committed nothing" test "$(grep -c ' committed task=' "$work/w1.log")" = 0
audited 1
check "the task was executed twice and committed once" test "$(grep -c ^begin "$work/witness")" = 2
