# 1/2/2: the leader lags, and wakes with its session alive but its znode gone.
#
# Breaks:     the leader: SIGSTOP; somebody deletes its znode by hand; SIGCONT before its session times out.
# Must hold:  the backup leads at once; the write that the old leader still sends is refused by its guard, which
#             ZooKeeper's log shows; it steps down, and joins again as a backup. The auditor names the deletion by hand.
# Takes:      about 12 s.

export HERDSMAN_SESSION_TIMEOUT=15s
herd 2 2 --allow exec
witnessed red 80 0.2 --rate 12
until_true "tasks are in flight" begun_at_least red 5
pause m1
znode=$(client status | sed -n 's/^leader   \([^ ]*\) .*/\1/p')
"$here/zookeeper" cli delete "/master/$znode" --dir "$work/zookeeper" >>"$work/zookeeper.log" 2>&1
until_true "m2 leads" leads m2
assigned=$(begun red)
until_true "m2 assigns tasks" begun_at_least red $((assigned + 5))
resume m1 # with the news of new tasks before it, and its own end behind them
until_true "m1 stands by" stands_by m1
check "m1 stepped down, in the same session" grep -q 'stepping down and joining again' "$work/m1.log"
done_by red 80
planted=foreign audited 80
check "which is the deletion of the leader's znode" grep -q "/master/$znode was deleted by another session" "$work/audit.json"
check "ZooKeeper's log shows m1's late write, refused by its guard ($(figure fenced))" test "$(figure fenced)" -ge 1
check "no running task was begun again" test "$(grep -c ^begin "$work/witness")" = 80
