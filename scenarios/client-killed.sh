# 1/1/1: the client is killed.
#
# Breaks:     the client, by SIGKILL: once when all is submitted, once in the middle of submitting.
# Must hold:  what was acknowledged is completed all the same; another process collects it; nothing is left.
# Takes:      about 8 s.

herd 1 1 --allow exec

witnessed sealed 8 0.5
until_true "it executes" begun_at_least sealed 2
kill_hard sealed
id=$(job sealed)
check "another client waits for $id" client wait "$id"
client results "$id" -o json >"$work/sealed.found"
check "and collects its 8 outcomes" test "$(outcomes "$work/sealed.found" done)" = 8

witnessed unsealed 1000 0 --rate 20
until_true "it executes" begun_at_least unsealed 10
kill_hard unsealed
id=$(job unsealed)
check "its job is not sealed, and nobody may remove anything from it" eval "! client results $id"
settled() { client status | grep "^job      $id " | grep -c ' 0 waiting, 0 assigned' >/dev/null; }
until_true "what was submitted is done" settled
submitted=$(begun unsealed)
client results "$id" --seal -o json >>"$work/unsealed.found" # what the client itself had collected is gone already
check "sealed, the rest of its outcomes is collected" test ! -s <(grep -v '"status":"done"' "$work/unsealed.found")
check "the jobs are gone from the tree" tree_is_clean
audited $((8 + submitted))
