# 1/2/1: two of three ZooKeeper servers are down.
#
# Servers:    3
# Breaks:     two of the three servers, by SIGKILL under load; one comes back after three seconds.
# Must hold:  without a majority everything waits and nothing is lost; when one server is back, work goes on.
# Takes:      about 20 s.

export HERDSMAN_SESSION_TIMEOUT=10s
herd 1 2 --allow exec
witnessed work 60 0.3 --rate 12
until_true "tasks execute" begun_at_least work 10
leading_server
leader=$leading
server kill "$leader"
server kill $(((leader % 3) + 1))
last=$((((leader + 1) % 3) + 1))
no_majority() { ! "$here/zookeeper" status --dir "$work/zookeeper" | grep -c 'Mode' >/dev/null; }
until_true "the last server, $last, serves nobody" no_majority
sleep 3 # the outage
check "nobody is served by a minority" no_majority
server revive "$leader"
done_by work 60
audited 60
