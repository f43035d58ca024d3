# 2/4/1: a task that kills its worker, beside a thousand that do not.
#
# Breaks:     three of four workers, each by a task that it executes.
# Must hold:  that task is dead after three crashes, each with its worker; all others are done.
# Takes:      about 15 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 1 4 --allow exec --slots 2
witnessed good 1000 0.01
until_true "they execute" begun_at_least good 20
submit poison --kind exec --wait -o json -- sh -c 'kill -KILL $(ps -o ppid= -p $PPID)'
limit_s=60 until_true "the poisoned task's client ends" has_ended poison
ended poison
check "it ends with 1 (exit code $exit_code)" test "$exit_code" = 1
check "and was told that the task is dead" test "$(outcomes "$work/poison.out" dead)" = 1
dead=$(client list --dead -o json)
check "three crashes are recorded" grep -c '"crashes":3' <<<"$dead"
check "each with its worker" test "$(grep -o '"worker":"w[1-4]-[0-9a-f]*"' <<<"$dead" | sort -u | wc -l)" = 3
done_by good 1000
check "one worker is left" test "$(client status | grep -c '^worker ')" = 1
check "the task is explained" eval 'client explain last | grep -c "dead after 3 attempts: its worker was lost"'
client forget last >/dev/null
check "and forgotten" tree_is_clean
audited 1000 1
