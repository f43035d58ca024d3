# 2/2/2: three ZooKeeper servers; their leader is killed, then a follower, under load.
#
# Servers:    3
# Breaks:     ZooKeeper's leader, by SIGKILL, started again; then a follower, likewise.
# Must hold:  sessions survive both; work goes on; nothing is lost.
# Takes:      about 20 s.

export HERDSMAN_SESSION_TIMEOUT=10s
herd 2 2 --allow exec
witnessed red 60 0.3 --rate 6
witnessed blue 60 0.3 --rate 6
until_true "tasks execute" begun_at_least red 10

leading_server
first=$leading
server kill "$first"
new_leader() { local now; now=$(server leader) && [[ $now != "$first" ]]; }
until_true "another server leads" new_leader
work_goes_on() { begun_at_least red $((red_then + 5)); }
red_then=$(begun red)
until_true "work goes on" work_goes_on
check "ZooKeeper's leader $first was killed, and another took its place" new_leader
server revive "$first"
serves_again() { "$here/zookeeper" status --dir "$work/zookeeper" | grep "server $1:" | grep -c Mode >/dev/null; }
until_true "server $first is back" serves_again "$first"

second=$(((first % 3) + 1))
leading_server
if [[ $second == "$leading" ]]; then second=$(((second % 3) + 1)); fi
server kill "$second"
check "then the follower $second was killed" eval "! serves_again $second"
red_then=$(begun red)
until_true "work goes on" work_goes_on
server revive "$second"

done_by red 60
done_by blue 60
check "m1 still leads" leads m1
until_true "server $second is back" serves_again "$second"
audited 120
check "nobody's session ended: no task was begun twice" test "$(grep -c ^begin "$work/witness")" = 120
