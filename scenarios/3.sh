# 2/2/1: two workers compete for the tasks of two clients.
#
# Breaks:     nothing; everybody wants the same.
# Must hold:  each task is executed once, both workers take part, each client receives its own tasks and no others.
# Takes:      about 4 s.

herd 1 2 --slots 2

submit red --kind sleep --count 20 --data 0.1 --wait -o json
submit blue --kind sleep --count 20 --data 0.1 --wait -o json
for client in red blue; do
    ended "$client"
    out=$work/$client.out
    check "$client ends with 0 (exit code $exit_code)" test "$exit_code" = 0
    check "$client received its 20 tasks, done" test "$(outcomes "$out" done)" = 20
    check "$client received no other" test "$(grep -o '"task":"[^/]*' "$out" | sort -u | wc -l)" = 1
    check "each once" test "$(distinct "$out")" = 20
done
cat "$work/red.out" "$work/blue.out" >"$work/both.out"
check "w1 did $(by "$work/both.out" w1) of the 40" test "$(by "$work/both.out" w1)" -ge 10
check "w2 did $(by "$work/both.out" w2) of the 40" test "$(by "$work/both.out" w2)" -ge 10
check "40 executions in all" test "$(cat "$work"/w?.log | grep -c ' running task=')" = 40
check "the jobs are gone from the tree" tree_is_clean
audited 40
