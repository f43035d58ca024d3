# 1/1/1: the worker fails, before and while it executes, and a new one comes.
#
# Breaks:     the only worker, by SIGTERM with no grace: once idle, once in the middle of a task.
# Must hold:  the task waits in the tree while there is no worker; the new worker completes it, once.
# Takes:      about 5 s.

herd 1 1 --grace 0s

terminate w1
submit before --kind sleep --data 0.2 --wait -o json
until_true "the task is in the tree" outstanding before
check "while there is no worker the task waits" no_worker
worker w2 --grace 0s
ended before
check "a new worker completes the task that no worker had begun" test "$(by "$work/before.out" w2)" = 1
check "it took one attempt" test "$(attempts "$work/before.out" 1)" = 1

submit while --kind sleep --data 1 --wait -o json
until_true "w2 executes the task" running while 1
terminate w2
until_true "w2's znode is gone" no_worker
check "the task that w2 had begun is still in the tree" outstanding while
worker w3
ended while
check "w3 completes it" test "$(by "$work/while.out" w3)" = 1
check "it took two attempts" test "$(attempts "$work/while.out" 2)" = 1
check "the job is gone from the tree" tree_is_clean
audited 2
