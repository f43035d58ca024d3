# What every scenario uses. Sourced by scenarios/run, which has set:
#   bin    where master, worker and client are
#   work   the scenario's folder: one log for each process
#   HERDSMAN_ZOOKEEPER, exported
#
# A scenario is a script that starts processes, breaks something, and says what it checked. Every process
# is one of its own; it is stopped by its recorded pid.

declare -gA pids=()         # name -> pid of every process started
export HERDSMAN_SESSION_TIMEOUT=${HERDSMAN_SESSION_TIMEOUT:-4s}
export HERDSMAN_LOG=debug,zookeeper_client=off
limit_s=30                  # how long any state may take to come

# start NAME PROGRAM ARGS...: runs a program in the background; standard output goes to NAME.out, logs to NAME.log.
start() {
    local name=$1 program=$2
    shift 2
    "$bin/$program" "$@" </dev/null >"$work/$name.out" 2>"$work/$name.log" &
    pids[$name]=$!
}
master() { start "$1" master --name "$1" "${@:2}"; }
worker() { start "$1" worker --name "$1" "${@:2}"; }

# herd MASTERS WORKERS ARGS...: m1 leads, m2 stands by behind it, w1, w2, ... are registered; ARGS go to the workers.
herd() {
    local n
    for ((n = 1; n <= $1; n++)); do
        master "m$n"
        if ((n == 1)); then until_true "m1 leads" leads m1; else until_true "m$n stands by" stands_by "m$n"; fi
    done
    for ((n = 1; n <= $2; n++)); do worker "w$n" "${@:3}"; done
    for ((n = 1; n <= $2; n++)); do until_true "w$n is registered" registered "w$n"; done
}

# submit NAME ARGS...: a client process of its own that submits, in the background.
submit() { start "$1" client submit --job "$1" "${@:2}"; }

# witnessed NAME COUNT SECONDS ARGS...: the same, with tasks that leave traces in a file, to be run by `worker --allow exec`.
witnessed() {
    submit "$1" --kind exec --count "$2" --wait -o json "${@:4}" -- "$here/witness" "$3" "$work/witness"
}
begun() { grep -c "^begin $1-" "$work/witness" 2>/dev/null || true; }
begun_at_least() { (($(begun "$1") >= $2)); }
# tokens_grow: each execution of a task has a greater fencing token than the one that began before. For scenarios in which
# nobody is paused: their lines are written in the order in which tasks begin.
tokens_grow() { awk '/^begin / { if (!($4 "" > last[$2] "")) exit 1; last[$2] = $4 }' "$work/witness"; }

# client ARGS...: a client process, now.
client() { "$bin/client" "$@" 2>>"$work/client.log"; }

# signal NAME SIGNAL: to a recorded pid only.
signal() {
    noted "$1" "SIG$2"
    kill "-$2" "${pids[$1]}"
}

# noted WHOM WHAT: a fault, for the timeline of the report.
noted() { printf '%s\t%s\t%s\n' $((${EPOCHREALTIME/[.,]/} / 1000)) "$1" "$2" >>"$work/faults"; }

# ended NAME: waits for a process and sets exit_code.
ended() {
    exit_code=0
    wait "${pids[$1]}" || exit_code=$?
    unset "pids[$1]"
}

# terminate NAME: SIGTERM, then its end; it must drain and exit with 0.
terminate() {
    signal "$1" TERM
    ended "$1"
    check "$1 drained and exited with 0 (exit code $exit_code)" test "$exit_code" = 0
}

# kill_hard NAME: SIGKILL; only the session timeout will tell.
kill_hard() {
    signal "$1" KILL
    ended "$1" 2>/dev/null
}
pause() { signal "$1" STOP; }
resume() { signal "$1" CONT; }

# has_ended NAME: it is gone, or waits only for us to take note.
has_ended() {
    local state
    state=$(ps -o stat= -p "${pids[$1]}" || true)
    [[ -z $state || $state == Z* ]]
}

# done_by CLIENT TASKS: the client ends with all its tasks done, each delivered once.
done_by() {
    limit_s=60 until_true "$1 ends" has_ended "$1"
    ended "$1"
    local out=$work/$1.out
    check "$1 ends with 0 (exit code $exit_code)" test "$exit_code" = 0
    check "$1 received its $2 tasks, done" test "$(outcomes "$out" done)" = "$2"
    check "each once" test "$(distinct "$out")" = "$2"
}

# until_true WHAT COMMAND...: waits for a state.
until_true() {
    local what=$1 deadline=$((SECONDS + limit_s))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then fail "not within $limit_s s: $what"; fi
        sleep 0.02
    done
}

# check WHAT COMMAND...: one line of the verdict.
check() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "    checked: $what" >>"$work/verdict"; else fail "$what"; fi
}

fail() {
    echo "    FAILED:  $1" >>"$work/verdict"
    { echo "--- the tree at that moment"; client tree --limit 10 || true; } >>"$work/verdict.tree" 2>&1
    exit 1
}

# fact NAME VALUE: for the scenario's line (tasks, takeover_ms).
fact() { echo "$2" >"$work/fact.$1"; }

# States to wait for.
leads() { client status | grep -c "^leader   $1-" >/dev/null; }
stands_by() { client status | grep -c "^backup   $1-" >/dev/null; }
registered() { client status | grep -c "^worker   $1-" >/dev/null; }
no_worker() { client status | grep -c '^workers  none' >/dev/null; }
# running JOB N: at least N tasks of the job whose name begins so have begun, by the workers' logs.
running() { (($(cat "$work"/*.log | grep -c " running task=$1-[0-9a-f]*/") >= $2)); }
# outstanding JOB: some task of the job is in the tree.
outstanding() { client tree --limit 1000 | sed -n '/^\/tasks/,/^\/data/p' | grep -A1 "^  $1-" | grep -c '^    [0-9]' >/dev/null; }
# job NAME: the id of the job whose name begins so.
job() { client status | sed -n "s/^job      \($1-[0-9a-f]*\) .*/\1/p"; }

# outcomes FILE STATUS: how many lines of `-o json` say so.
outcomes() { grep -c "\"status\":\"$2\"" "$1" || true; }
# distinct FILE: how many different tasks there are in it.
distinct() { grep -o '"task":"[^"]*"' "$1" | sort -u | wc -l; }
# attempts FILE N: how many tasks took N attempts.
attempts() { grep -c "\"attempts\":$2[,}]" "$1" || true; }
# by FILE WORKER: how many tasks the worker of that name committed.
by() { grep -c "\"worker\":\"$2-" "$1" || true; }

# audited TASKS [OTHERS [SILENT]]: the auditor's judgement on ZooKeeper's own logs, TASKS tasks done by them, and OTHERS that were
# not. SILENT of those that were done leave no trace with the second witness.
# Where the scenario itself broke rules by hand, planted names them, in order and each as often as it was broken: the
# auditor must name those, and nothing else.
audited() {
    local logs=() server
    for server in "$work"/zookeeper/[0-9]*; do logs+=(--log "$server/data"); done
    client audit --settled "${logs[@]}" -o json >"$work/audit.json" ||
        client audit --settled "${logs[@]}" >"$work/verdict.tree" || true
    if [[ -z ${planted:-} ]]; then
        check "the auditor finds every rule kept" grep -q '^{"verdict":"valid"' "$work/audit.json"
    else
        local rules
        rules=$(tr ' ' '\n' <<<"$planted" | uniq | paste -sd ' ')
        fact planted "$rules"
        check "the auditor names what was done by hand ($rules), and finds every other rule kept" \
            test "$(grep -o '"rule":"[a-z-]*"' "$work/audit.json" | cut -d'"' -f4 | sort | paste -sd ' ') $(grep -c '"doubts":\[\]' "$work/audit.json")" = "$planted 1"
    fi
    check "and $1 tasks submitted, each done once" test "$(figure submitted) $(figure done)" = "$(($1 + ${2:-0})) $1"
    if [[ -e $work/witness ]]; then
        local executions
        executions=$(grep -c '^begin' "$work/witness")
        check "the second witness saw $executions executions, at least one each" \
            test "$(grep '^end' "$work/witness" | cut -d' ' -f2 | sort -u | wc -l)" = "$(($1 - ${3:-0}))"
    fi
    fact tasks "$1"
    local takeover
    takeover=$(grep -o '"takeover_ms":[0-9][0-9]*' "$work/audit.json" | tail -n 1 || true)
    [[ -z $takeover ]] || fact takeover_ms "${takeover#*:}"
}
# figure NAME: one of the audit's figures.
figure() { grep -o "\"$1\":[0-9]*" "$work/audit.json" | head -n 1 | cut -d: -f2; }

# A line between one process and ZooKeeper: `line NAME` makes one, "${line_to[NAME]}" is what to connect to, `steer NAME
# COMMAND...` cuts and mends it.
declare -gA line_to=() line_in=()
line() {
    mkfifo "$work/$1.commands"
    "$bin/line" --to "$HERDSMAN_ZOOKEEPER" <"$work/$1.commands" >"$work/$1.address" 2>"$work/$1.log" &
    pids[$1]=$!
    local fd
    exec {fd}>"$work/$1.commands"
    line_in[$1]=$fd
    until_true "the line listens" test -s "$work/$1.address"
    line_to[$1]=$(cat "$work/$1.address")
}
steer() {
    noted "$1" "${*:2}"
    echo "${*:2}" >&"${line_in[$1]}"
}

# ZooKeeper's servers, by number.
server() {
    [[ $1 == leader ]] || noted "server $2" "$1"
    "$here/zookeeper" "$1" "${2:-}" --dir "$work/zookeeper" 2>>"$work/zookeeper.log"
}

# leading_server: waits until one leads, and sets leading to its number.
leading_server() { until_true "a ZooKeeper server leads" eval 'leading=$(server leader)'; }

# In what follows grep reads all that it is sent: one that stops at the first match (-q) would end its sender by SIGPIPE.

# The tree of the design and nothing else: four roots, JSON, no job left.
tree_is_clean() {
    local tree
    tree=$(client tree)
    [[ $(grep '^/' <<<"$tree" | tr '\n' ' ') == "/master /workers /tasks /data " ]] &&
        [[ -z $(sed -n '/^\/tasks/,$p' <<<"$tree" | grep '^ ') ]]
}

# Stops what still runs. Called at the end of every scenario, however it ends.
clean_up() {
    local name
    for name in "${!pids[@]}"; do kill -KILL "${pids[$name]}" 2>/dev/null || true; done
    for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null || true; done
}
