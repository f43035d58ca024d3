//! The steps of `docs/protocol.md`. Each function returns the operations of one step, or of a part of one; whoever
//! takes the step sends them in one multi, behind the guard that the page names. Nobody writes into the tree in any
//! other way.
//!
//! The caller reads what the step needs, and knows what a refusal means; the page says both.

use znode::{Op, paths};

use crate::{Assignment, JobId, JobRecord, Outcome, TaskId, TaskState, Withdrawn, WorkerId, WorkerRecord, key_path};

/// Which of the operations of [`complete`] and [`cancel`] sets the outcome, counted from 0.
pub const OUTCOME_AT: usize = 1;
/// How many operations of [`open`] are about the job's own znodes. One for each job in `after` follows, then the key.
pub const OPEN_OWN: usize = 3;

/// *open*, with the key, where there is one, as [`take_key`] makes it; `client` is the path by which its client attends it.
pub fn open(job: &JobId, record: &JobRecord, client: &str, key: Option<Op>) -> Vec<Op> {
    let mut ops = vec![
        Op::Create { path: job.path(), data: record.to_json() },
        Op::Create { path: job.data_path(), data: Vec::new() },
        attend(client),
    ];
    ops.extend(record.after.iter().map(|before| Op::Create { path: before.after_path(job), data: Vec::new() }));
    ops.extend(key);
    ops
}

/// The znode by which a client attends a job, so that nobody sweeps it meanwhile: part of *open* and *rejoin*.
pub fn attend(client: &str) -> Op {
    Op::CreateEphemeral { path: client.to_owned(), data: Vec::new(), sequential: false }
}

/// A key is given to a job: part of *open*. `version` of its znode, where somebody had it.
pub fn take_key(key: &str, job: &JobId, version: Option<i32>) -> Op {
    let (path, data) = (key_path(key), job.as_str().as_bytes().to_vec());
    match version {
        None => Op::Create { path, data },
        version => Op::Set { path, data, version },
    }
}

/// What heads each *submit*: refused once the job is sealed, or another session has rejoined.
pub fn submission_guard(job: &JobId, version: Option<i32>) -> Op {
    Op::Check { path: job.path(), version }
}

/// *submit* of one task.
pub fn submit(task: &TaskId, payload: Vec<u8>) -> Vec<Op> {
    vec![Op::Create { path: task.data_path(), data: payload }, Op::Create { path: task.path(), data: Vec::new() }]
}

/// *rejoin*: whatever an earlier session of the submitter still sends is refused. `data` is the record as it was read.
pub fn rejoin(job: &JobId, data: Vec<u8>, version: i32) -> Op {
    Op::Set { path: job.path(), data, version: Some(version) }
}

/// *seal*; `tasks`: how many there are, if it is the submitter that seals.
pub fn seal(job: &JobId, record: &JobRecord, tasks: Option<u32>, version: Option<i32>) -> Op {
    let record = JobRecord { sealed: true, tasks: tasks.or(record.tasks), ..record.clone() };
    Op::Set { path: job.path(), data: record.to_json(), version }
}

/// *assign, take back*: the list of a worker as it is to be.
pub fn assign(worker: &WorkerId, record: &WorkerRecord) -> Op {
    Op::Set { path: worker.path(), data: record.to_json(), version: None }
}

/// *move*, of one task; the two lists as [`assign`] makes them.
pub fn move_on(task: &TaskId, data: Vec<u8>, version: i32) -> Op {
    Op::Set { path: task.path(), data, version: Some(version) }
}

/// *complete*: the task goes at the version assigned, and its outcome, as it is stored, takes the payload's place.
pub fn complete(assignment: &Assignment, outcome: Vec<u8>) -> Vec<Op> {
    end(&assignment.task, Some(assignment.version), outcome)
}

/// *cancel*: who cancels does not run the task, and so ends it at whatever version it is.
pub fn cancel(task: &TaskId, outcome: &Outcome) -> Vec<Op> {
    end(task, None, outcome.to_json())
}

/// *cancel*, where the data is absent or at another version: only the task is deleted; its outcome is whatever the data
/// holds.
pub fn cancel_alone(task: &TaskId) -> Op {
    Op::Delete { path: task.path(), version: None }
}

fn end(task: &TaskId, version: Option<i32>, outcome: Vec<u8>) -> Vec<Op> {
    vec![Op::Delete { path: task.path(), version }, Op::Set { path: task.data_path(), data: outcome, version: Some(0) }]
}

/// Marks a job as `failed`, since a task of it ended without success: part of *complete* and *cancel*; `None` if it is
/// marked.
pub fn mark_failed(job: &JobId, record: JobRecord, version: i32) -> Option<Op> {
    if record.failed {
        return None;
    }
    Some(set_record(job, &JobRecord { failed: true, ..record }, version))
}

/// *end an attempt*.
pub fn end_attempt(task: &TaskId, state: &TaskState, version: i32) -> Op {
    Op::Set { path: task.path(), data: state.to_json(), version: Some(version) }
}

/// *withdraw*.
pub fn withdraw(job: &JobId, record: JobRecord, withdrawn: Withdrawn, version: i32) -> Op {
    let record = JobRecord { sealed: true, failed: true, withdrawn: Some(withdrawn), ..record };
    set_record(job, &record, version)
}

/// *release*: the job need not wait for that other one any more.
pub fn release(job: &JobId, mut record: JobRecord, after: &JobId, version: i32) -> Op {
    record.after.retain(|before| before != after);
    set_record(job, &record, version)
}

/// A job is still as it was read: part of *release*, of the one before it.
pub fn unchanged(job: &JobId, version: i32) -> Op {
    Op::Check { path: job.path(), version: Some(version) }
}

/// A job's record, changed by whoever read it at that version: *seal* and *withdraw* by a client.
pub fn set_record(job: &JobId, record: &JobRecord, version: i32) -> Op {
    Op::Set { path: job.path(), data: record.to_json(), version: Some(version) }
}

/// *retry*.
pub fn retry(task: &TaskId, state: &TaskState, version: i32) -> Op {
    Op::Set { path: task.path(), data: state.revived().to_json(), version: Some(version) }
}

/// *collect*: of an outcome at version 1, of a lost task's payload at version 0.
pub fn collect(task: &TaskId, version: i32) -> Op {
    Op::Delete { path: task.data_path(), version: Some(version) }
}

/// *close*: the job goes, with what is left in it, `children` of `/tasks/<job>` and `stored` below `/data/<job>`, `None` where
/// that is gone; and with its `ties` to others.
pub fn close(job: &JobId, children: &[String], stored: Option<&[String]>, ties: Vec<Op>) -> Vec<Op> {
    let delete = |path| Op::Delete { path, version: None };
    let mut ops: Vec<Op> = children.iter().map(|name| delete(paths::join(&job.path(), name))).collect();
    ops.extend(stored.unwrap_or_default().iter().map(|name| delete(paths::join(&job.data_path(), name))));
    ops.extend(stored.map(|_| delete(job.data_path())));
    ops.push(delete(job.path()));
    ops.extend(ties);
    ops
}

/// Frees a key, if this job still has it: part of *close*.
pub fn free_key(key: &str, version: i32) -> Op {
    Op::Delete { path: key_path(key), version: Some(version) }
}

/// The later job no longer keeps this one: part of *release* and *close*.
pub fn let_go(job: &JobId, later: &JobId) -> Op {
    Op::Delete { path: job.after_path(later), version: None }
}

/// *sweep*, of what is called `name` below `/data/<job>`: an outcome at version 1, the payload of a task that is not there at
/// version 0, anything else at any.
pub fn sweep(job: &JobId, name: &str, version: Option<i32>) -> Op {
    Op::Delete { path: paths::join(&job.data_path(), name), version }
}

/// *sweep*, of a dead task and its payload. A client that forgets a task does not know its version.
pub fn sweep_dead(task: &TaskId, version: Option<i32>) -> Vec<Op> {
    vec![Op::Delete { path: task.path(), version }, Op::Delete { path: task.data_path(), version: None }]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Steps that are no transition of a record of this crate: a registration is left by whoever holds it.
    const ELSEWHERE: [&str; 1] = ["leave"];

    /// What stands in the first column of the page's table of steps, up to the first comma or bracket.
    fn on_the_page() -> BTreeSet<String> {
        let page = include_str!("../../../docs/protocol.md");
        let table = page.split("| step | who | the multi |").nth(1).expect("the page has a table of steps");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let step =
            |row: &str| row.trim_start_matches("| ").split([',', '(', '|']).next().map(|name| name.trim().to_owned());
        rows.filter_map(step).collect()
    }

    #[test]
    fn each_step_of_the_page_has_its_function_and_each_function_its_step() {
        let code = include_str!("transitions.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().filter_map(|line| line.strip_prefix("/// "));
        let named = lines.filter_map(|line| line.split('*').nth(1)).map(|name| name.split(',').next().unwrap_or(name));
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        let elsewhere = ELSEWHERE.map(str::to_owned);
        let page: BTreeSet<String> = on_the_page().into_iter().filter(|step| !elsewhere.contains(step)).collect();
        assert_eq!(named, page);
        let functions = code.matches("\npub fn ").count();
        let told = code.split("\npub fn ").filter(|before| {
            let doc: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("///")).collect();
            doc.iter().any(|line| line.contains('*'))
        });
        assert_eq!(told.count(), functions, "each function names the step that it is, or is part of");
    }
}
