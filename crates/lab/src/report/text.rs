//! The page: what was run, how, what held, and the answers to the course's questions. All numbers are of this run.

use std::fmt::Write;

use super::case::Case;

/// What a chaos run printed: its lines, the seed first.
#[derive(Debug, Clone)]
pub struct ChaosOutput(pub String);

impl ChaosOutput {
    /// The first number behind a word at the beginning of a line.
    fn number(&self, word: &str, nth: usize) -> Option<&str> {
        let line = self.0.lines().find(|line| line.starts_with(word))?;
        line.split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))
            .nth(nth)
    }

    fn word(&self, word: &str) -> &str {
        let line = self.0.lines().find(|line| line.starts_with(word)).unwrap_or_default();
        line[word.len().min(line.len())..].trim()
    }
}

/// The page, in Markdown. `when` and `machine` are said as they are given.
pub fn page(cases: &[Case], chaos: &[ChaosOutput], when: &str, machine: &str) -> String {
    let mut page = String::new();
    head(&mut page, cases, when, machine);
    table(&mut page, cases);
    questions(&mut page, cases);
    pictures(&mut page, cases);
    chaos_runs(&mut page, chaos);
    checks(&mut page, cases);
    page
}

fn head(page: &mut String, cases: &[Case], when: &str, machine: &str) {
    let tasks: usize = cases.iter().map(|case| case.verdict.figures.submitted).sum();
    let passed = cases.iter().filter(|case| !case.failed && case.is_valid()).count();
    let faults: usize = cases.iter().map(|case| case.faults.len()).sum();
    let _ = write!(
        page,
        "# Report: what was broken, and what held\n\n\
         {passed} of {} scenarios passed, with {tasks} tasks and {faults} signals and faults, run {when} on {machine}.\n\n\
         ## What was run, and how\n\n\
         Every scenario starts masters, workers and clients as separate processes, on a private Apache ZooKeeper with data \
         of its own, breaks something, and says what it checked. Written by `scenarios/report`; one scenario is run with \
         `scenarios/run NAME`.\n\n\
         The judge is not our own output but **ZooKeeper's transaction log**. It holds every write that was made or refused, \
         in one total order, each with its session and time. The auditor (`client audit --log DATA_DIR`) reads the binary \
         files, replays the tree, and checks at every zxid:\n\n\
         - every task ends once: completed in the transaction that records its outcome, or, dead, removed with its payload; no \
         id is used twice;\n\
         - an outcome is set once, by a session that owns a registered worker which has the task in its list; nobody else ends \
         an attempt, but the leader where a worker was lost with it;\n\
         - assignments are written only by the session that owns the lowest candidate for leadership, and never by a \
         candidate after its successor has begun; each write of a leader or a worker is headed by the check of its own znode;\n\
         - no task is in the lists of two live workers at once, nor in that of one without its kind and its tags;\n\
         - what ends with a session is ephemeral, and gone by that session alone; a root is never deleted;\n\
         - a job's record takes nothing back, and its outcomes are removed by its submitter until it is sealed;\n\
         - a sealed job gets no more tasks, and they are as many as its client counted;\n\
         - nothing is assigned that is dead, in backoff or delayed, or whose job waits for another that has not succeeded;\n\
         - of the jobs with one key, one at most has not ended;\n\
         - a job is closed with nothing left in it, and at the end of the log no task waits or runs.\n\n\
         A second witness counts executions: where the table names a number, each task appended a line to a file when it \
         began and when it ended. Executions may exceed tasks, commits may not.\n\n",
        cases.len()
    );
}

fn table(page: &mut String, cases: &[Case]) {
    page.push_str(
        "## Verdicts and figures\n\n\
         c/w/m are clients, workers and masters. *Takeover* is from the end of one leader (where the scenario sends the \
         signal, from that) to the first assignment of the next. *Refused* are transactions that ZooKeeper refused because \
         a guard failed: their sender had lost its place.\n\n\
         | scenario | c/w/m | verdict | tasks | done | executed | lost attempts | elections | takeover | refused |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in cases {
        let figures = &case.verdict.figures;
        let (shape, _) = case.title.split_once(": ").unwrap_or(("", ""));
        let verdict = match &case.planted {
            _ if case.failed => "FAILED".to_owned(),
            Some(rule) if case.is_valid() => format!("valid, but for *{rule}* by hand"),
            _ => case.verdict.verdict.to_owned(),
        };
        let executed = case.executions.map_or("-".to_owned(), |n| n.to_string());
        let takeover = takeover(case).map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let _ = writeln!(
            page,
            "| {} | {shape} | {verdict} | {} | {} | {executed} | {} | {} | {takeover} | {} |",
            case.name, figures.submitted, figures.done, figures.lost_attempts, figures.elections, figures.fenced
        );
    }
    page.push('\n');
}

fn takeover(case: &Case) -> Option<i64> {
    case.takeover_ms.or_else(|| case.verdict.leaders.iter().filter_map(|leader| leader.takeover_ms).next_back())
}

fn questions(page: &mut String, cases: &[Case]) {
    let find = |name: &str| cases.iter().find(|case| case.name == name);
    page.push_str("## The course's questions\n\n");
    if let Some(case) = find("leader-lags") {
        let old = case.verdict.leaders.first();
        let new = case.verdict.leaders.get(1);
        let (paused, resumed) = (at(case, "SIGSTOP"), at(case, "SIGCONT"));
        let after = |ms: Option<i64>| ms.zip(paused).map_or(0, |(ms, paused)| ms - paused);
        let _ = write!(
            page,
            "**What if the leader lags, as in a long garbage collection?** In `leader-lags` the leader was stopped for \
             {} ms, with a session timeout of 2,000 ms. ZooKeeper ended its session {} ms after the stop and removed its \
             znode with it; the backup, which watched just that znode, made its first assignment {} ms after that. When the \
             old leader woke it still believed that it led. It was told at its first contact that its session was over, \
             stepped down, and joined again as a backup: after its successor's first write the log holds no assignment of \
             it. All {} tasks were done, {} times executed, so no running task was begun again.\n\n",
            after(resumed),
            after(old.and_then(|leader| leader.until_ms)),
            new.and_then(|leader| leader.takeover_ms).unwrap_or_default(),
            case.verdict.figures.done,
            case.executions.unwrap_or_default()
        );
    }
    if let Some(case) = find("leader-deposed") {
        let _ = write!(
            page,
            "Does that rest on the session alone? No. In `leader-deposed` the leader woke with its session alive and only \
             its znode gone. It did send its next assignment, and ZooKeeper's log shows it **refused**: {} transaction(s), \
             by the check of the leader's own znode that heads each of its writes. The deletion by hand is what the auditor \
             names, and all that it names.\n\n",
            case.verdict.figures.fenced
        );
    }
    if let Some(case) = find("worker-lags") {
        let _ = write!(
            page,
            "**And a worker that lags?** In `worker-lags` its task was executed {} times and committed {} time: by the \
             worker that took over. The late completion of the first had no effect.\n\n",
            case.executions.unwrap_or_default(),
            case.verdict.figures.done
        );
    }
    if let Some(case) = find("ensemble") {
        let _ = write!(
            page,
            "**What changes in cluster mode?** Nothing for masters, workers and clients, which are given three addresses \
             instead of one. In `ensemble` ZooKeeper's own leader was killed, and after its return a follower. All {} tasks \
             were done with {} executions and {} election among our masters: no session ended, since a session belongs to \
             the ensemble and not to a server. The logs of the three servers were merged for the audit; {} record(s) had \
             been proposed and never committed, and were left out.\n\n",
            case.verdict.figures.done,
            case.executions.unwrap_or_default(),
            case.verdict.figures.elections,
            case.verdict.figures.uncommitted
        );
    }
    if let Some(case) = find("minority") {
        let _ = write!(
            page,
            "**And when too many servers fail?** In `minority` two of three were killed. The last one alone served nobody, \
             reads included: everything waited. When one returned, work resumed, and all {} tasks were done. The longest \
             time without a commit was {:.1} s.\n\n",
            case.verdict.figures.done,
            longest_gap_ms(case) as f64 / 1000.0
        );
    }
    if let Some(case) = find("server-restarted") {
        let _ = write!(
            page,
            "**And a single server that fails?** In `server-restarted` it was killed and started again two seconds later. \
             It replayed its own log and knew every session, so leader and workers went on under the znodes that they had: \
             {} election(s) in the whole run, {} tasks done, {} executed; {:.1} s without a commit.\n\n",
            case.verdict.figures.elections,
            case.verdict.figures.done,
            case.executions.unwrap_or_default(),
            longest_gap_ms(case) as f64 / 1000.0
        );
    }
}

/// When the first fault of this kind was caused.
fn at(case: &Case, what: &str) -> Option<i64> {
    case.faults.iter().find(|fault| fault.what == what).map(|fault| fault.at_ms)
}

fn longest_gap_ms(case: &Case) -> i64 {
    let ends: Vec<i64> = case.verdict.spans.iter().map(|span| span.to_ms).collect();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn pictures(page: &mut String, cases: &[Case]) {
    page.push_str(
        "## Timelines\n\nDrawn from the audit's data: who was in the tree, who led, which tasks were assigned to whom until \
         when, where a guard refused a write. Red lines are the faults.\n\n",
    );
    for case in cases {
        let _ = writeln!(page, "![{}](timeline-{}.svg)\n", case.name, case.name);
    }
}

fn chaos_runs(page: &mut String, chaos: &[ChaosOutput]) {
    if chaos.is_empty() {
        return;
    }
    page.push_str(
        "## Chaos\n\n`scenarios/chaos --seed N --minutes M`: 3 masters, 5 workers (one without a temporary \
         directory), 7 clients (two of them with tasks that fail, hang, kill their worker, leave programs behind, return much, are \
         cancelled by the thousand, delayed, keyed or attached, or wait for others, and two that submit thousands at once while \
         replies to their large writes are cut off) and 3 ZooKeeper servers, beside a neighbour who leaves unreadable, fat and \
         senseless znodes, a persistent candidate and a worker that runs nothing, under a schedule of faults drawn from the seed; \
         four clocks are an hour off. Then everything heals, and two verdicts are demanded. *Witnessed* are executions that were \
         reported with their fencing token to a second witness, which does not hear of those that come by the thousand.\n\n\
         | seed | faults | replies cut | submitted | ended | witnessed | takeovers | longest stall once healed | safe | live |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for run in chaos {
        let number = |word, nth| run.number(word, nth).unwrap_or("-").to_owned();
        let cut = run.0.lines().find(|line| line.ends_with("replies to writes were cut off")).unwrap_or_default();
        let stall = run.0.lines().find(|line| line.ends_with("without a commit")).unwrap_or_default();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            number("seed", 0),
            number("faults", 0),
            cut.split_whitespace().next().unwrap_or("-"),
            number("tasks", 0),
            number("tasks", 1),
            number("tasks", 2),
            number("takeovers", 0),
            stall.trim().split(" at most").next().unwrap_or_default(),
            run.word("safe"),
            run.word("live")
        );
    }
    page.push('\n');
}

fn checks(page: &mut String, cases: &[Case]) {
    page.push_str("## What each scenario checked\n\n");
    for case in cases {
        let _ = writeln!(page, "**{}** {}", case.name, case.title);
        let texts = case.checks.iter().map(|check| check.trim_start_matches("checked: "));
        let _ = writeln!(page, "{}.\n", texts.collect::<Vec<_>>().join("; "));
    }
}
