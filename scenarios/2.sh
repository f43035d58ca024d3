# 1/2/1: one of two workers fails.
#
# Breaks:     a worker, by SIGTERM with no grace while both execute.
# Must hold:  its tasks are completed by the other, each once; the other's own tasks are not begun again.
# Takes:      about 5 s.

master m1
worker w1 --slots 2 --grace 0s
worker w2 --slots 2
until_true "w1 is registered" registered w1
until_true "w2 is registered" registered w2
until_true "m1 leads" leads m1

submit work --kind sleep --count 8 --data 0.7 --wait -o json
until_true "both workers execute, two tasks each" running work 4
terminate w1
ended work
check "the client ends with 0 (exit code $exit_code)" test "$exit_code" = 0
check "all 8 tasks are done" test "$(outcomes "$work/work.out" done)" = 8
check "each was delivered once" test "$(distinct "$work/work.out")" = 8
check "the two that w1 had begun took two attempts" test "$(attempts "$work/work.out" 2)" = 2
check "the other six took one" test "$(attempts "$work/work.out" 1)" = 6
check "the job is gone from the tree" tree_is_clean
audited 8
