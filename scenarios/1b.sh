# 1/1/1: the client fails before its task completes.
#
# Breaks:     the client, by SIGTERM while its task executes.
# Must hold:  the task is completed all the same, once; another process fetches the outcome and cleans up.
# Takes:      about 3 s.

herd 1 1

submit lost --kind sleep --data 1 --wait -o json
until_true "w1 executes the task" running lost 1
signal lost TERM
ended lost
check "the client ends, interrupted (exit code $exit_code)" test "$exit_code" = 130
check "it received nothing" test ! -s "$work/lost.out"
check "its task is still in the tree" outstanding lost

id=$(job lost)
check "another client waits for the job $id" client wait "$id"
client results "$id" -o json >"$work/found.out"
check "and fetches its outcome" test "$(outcomes "$work/found.out" done)" = 1
check "the task was executed once" test "$(grep -c ' running task=' "$work/w1.log")" = 1
check "the job is gone from the tree" tree_is_clean
audited 1
