//! What the herd looks like.

use std::collections::HashMap;

use coordination::{Failure, Node, Session, read_all};
use serde::Serialize;
use tree::{Assignment, JobId, JobRecord, MASTER, MasterRecord, ROOTS, TASKS, WORKERS, WorkerRecord, task_number};
use znode::{MULTI_OPS_MAX, paths};

/// How many names are listed in one request, about.
const NAMES_MAX: usize = 20_000;
/// What is missing where no candidate leads.
pub(super) const NOBODY_LEADS: &str = "nobody leads: start one with `master`";

/// The herd at one moment, more or less: it is read in a few steps.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Herd {
    /// The candidates in their order: the first one leads, the others stand by.
    pub masters: Vec<MasterView>,
    /// The workers by name.
    pub workers: Vec<WorkerView>,
    /// The jobs, oldest first.
    pub jobs: Vec<JobView>,
    /// Znodes that follow no protocol of ours.
    pub malformed: Vec<String>,
}

/// A candidate.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MasterView {
    /// Its znode's name.
    pub id: String,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
}

/// A worker.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerView {
    /// Its znode's name.
    pub id: String,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many it was given.
    pub assigned: usize,
    /// What it runs.
    pub kinds: Vec<String>,
    /// What else it says of itself.
    pub tags: Vec<String>,
}

/// A job.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// Which handler runs its tasks.
    pub kind: String,
    /// Its tasks go before those of jobs with a lower one.
    pub priority: i32,
    /// Whether all was submitted.
    pub sealed: bool,
    /// Why what is outstanding is not to be done, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
    /// The jobs that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Tasks that wait, or are dead.
    pub waiting: usize,
    /// Tasks in a worker's list.
    pub assigned: usize,
    /// Outcomes to be collected.
    pub ended: usize,
}

/// Looks at masters, workers and jobs.
pub async fn herd(session: &Session) -> Result<Herd, Failure> {
    session.refresh().await?;
    let mut malformed = Vec::new();
    let mut masters = Vec::new();
    for (name, node) in children(session, MASTER, &mut malformed).await? {
        match candidate(&name, &node) {
            Some(candidate) => masters.push(candidate),
            None => malformed.push(paths::join(MASTER, &name)),
        }
    }
    masters.sort_by_key(|(number, _)| *number);
    let (mut workers, mut assignments) = (Vec::new(), Vec::new());
    for (name, node) in children(session, WORKERS, &mut malformed).await? {
        match worker_record(&node) {
            Some(record) => {
                let assigned = live(session, record.assignments().0).await?;
                let view = WorkerView {
                    id: name,
                    slots: record.slots,
                    assigned: assigned.len(),
                    kinds: record.kinds,
                    tags: record.tags,
                };
                workers.push(view);
                assignments.extend(assigned);
            }
            None => malformed.push(paths::join(WORKERS, &name)),
        }
    }
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    let mut opened = Vec::new();
    for (name, node) in children(session, TASKS, &mut malformed).await? {
        match (name.parse::<JobId>(), JobRecord::from_json(&node.data)) {
            (Ok(id), Ok(record)) => opened.push((node.czxid, id, record)),
            _ => malformed.push(paths::join(TASKS, &name)),
        }
    }
    opened.sort_by_key(|(czxid, ..)| *czxid);
    let ids: Vec<&JobId> = opened.iter().map(|(_, id, _)| id).collect();
    let counts = counts(session, &ids, &mut malformed).await?;
    let mut assigned_of: HashMap<JobId, usize> = HashMap::new();
    assignments.into_iter().for_each(|a| *assigned_of.entry(a.task.job).or_default() += 1);
    let view = |((_, id, record), (outstanding, stored)): ((i64, JobId, JobRecord), (usize, usize))| {
        let assigned = assigned_of.get(&id).copied().unwrap_or(0);
        JobView {
            id: id.to_string(),
            kind: record.kind,
            priority: record.policy.priority,
            sealed: record.sealed,
            withdrawn: record.withdrawn.map(|withdrawn| withdrawn.reason),
            after: record.after,
            waiting: outstanding.saturating_sub(assigned),
            assigned: assigned.min(outstanding),
            ended: stored.saturating_sub(outstanding),
        }
    };
    let jobs = opened.into_iter().zip(counts).map(view).collect();
    Ok(Herd { masters: masters.into_iter().map(|(_, view)| view).collect(), workers, jobs, malformed })
}

/// The place of a candidate in the queue. One without a session never leads, whatever its number.
pub(super) fn candidate(name: &str, node: &Node) -> Option<(u32, MasterView)> {
    let record = MasterRecord::from_json(&node.data).ok().filter(|_| node.owner != 0)?;
    Some((paths::sequence(name)?, MasterView { id: name.to_owned(), host: record.host, pid: record.pid }))
}

/// What a worker says of itself, and has. A znode that no session owns is no worker, whatever it holds.
pub(super) fn worker_record(node: &Node) -> Option<WorkerRecord> {
    WorkerRecord::from_json(&node.data).ok().filter(|_| node.owner != 0)
}

/// For each job how many tasks have a znode, and how many a payload or an outcome.
async fn counts(
    session: &Session,
    jobs: &[&JobId],
    malformed: &mut Vec<String>,
) -> Result<Vec<(usize, usize)>, Failure> {
    let paths: Vec<String> = jobs.iter().flat_map(|job| [job.path(), job.data_path()]).collect();
    let children = |node: Node| usize::try_from(node.children).unwrap_or(0);
    let nodes = read_all(session, &paths).await?;
    let names: Vec<usize> = nodes.into_iter().map(|node| node.ok().flatten().map_or(0, children)).collect();
    let (mut counts, mut rest) = (Vec::with_capacity(paths.len()), &paths[..]);
    while !rest.is_empty() {
        let mut left = NAMES_MAX;
        let fit = names[counts.len()..].iter().take(MULTI_OPS_MAX).take_while(|names| {
            let fits = left >= **names;
            left = left.saturating_sub(**names);
            fits
        });
        let (now, later) = rest.split_at(fit.count().max(1)); // one that is larger goes by itself
        for (path, listed) in now.iter().zip(session.children_many(now).await?) {
            let names = listed.unwrap_or_else(|_| {
                malformed.push(path.clone());
                None
            });
            counts.push(names.unwrap_or_default().iter().filter(|name| task_number(name).is_ok()).count());
        }
        rest = later;
    }
    Ok(counts.chunks_exact(2).map(|both| (both[0], both[1])).collect())
}

/// The assignments that are not over: the leader drops those from a list only when it writes the next one.
async fn live(session: &Session, assignments: Vec<Assignment>) -> Result<Vec<Assignment>, Failure> {
    let paths: Vec<String> = assignments.iter().map(|a| a.task.path()).collect();
    let nodes = read_all(session, &paths).await?;
    let holds = |a: &Assignment, node: Option<Node>| node.is_some_and(|node| node.version == a.version);
    let live = assignments.into_iter().zip(nodes).filter_map(|(a, node)| holds(&a, node.ok()?).then_some(a));
    Ok(live.collect())
}

/// The children of a znode with their data, sorted by name; what may not be read is malformed.
pub(super) async fn children(
    session: &Session,
    path: &str,
    malformed: &mut Vec<String>,
) -> Result<Vec<(String, Node)>, Failure> {
    let names = names(session, path, malformed).await?;
    let paths: Vec<String> = names.iter().map(|name| paths::join(path, name)).collect();
    let mut found = Vec::new();
    for ((name, path), node) in names.into_iter().zip(&paths).zip(read_all(session, &paths).await?) {
        match node {
            Ok(node) => found.extend(node.map(|node| (name, node))),
            Err(_) => malformed.push(path.clone()),
        }
    }
    Ok(found)
}

/// The names of the children of a znode, sorted; one that may not be read is malformed.
async fn names(session: &Session, path: &str, malformed: &mut Vec<String>) -> Result<Vec<String>, Failure> {
    let mut names = match session.children(path).await {
        Err(Failure::Refused(_)) => {
            malformed.push(path.to_owned());
            Vec::new()
        }
        names => names?.unwrap_or_default(),
    };
    names.sort_unstable();
    Ok(names)
}

/// A line of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeLine {
    /// How deep it is; the four roots are at 0.
    pub depth: usize,
    /// The znode's name.
    pub name: String,
    /// The znode; `None` stands for as many more as `name` says, or for one that may not be read.
    pub node: Option<Node>,
}

/// The tree as it is, at most `limit` children of each znode.
pub async fn tree(session: &Session, limit: usize) -> Result<Vec<TreeLine>, Failure> {
    session.refresh().await?;
    let mut lines = Vec::new();
    for root in ROOTS {
        branch(session, root, root, 0, limit, &mut lines).await?;
    }
    Ok(lines)
}

/// A znode, `name` for people, and what is below it.
async fn branch(
    session: &Session,
    path: &str,
    name: &str,
    depth: usize,
    limit: usize,
    lines: &mut Vec<TreeLine>,
) -> Result<(), Failure> {
    let mut names = match session.get(path).await {
        Ok(None) => return Ok(()),
        Ok(Some(node)) => {
            let has_children = node.children > 0;
            lines.push(TreeLine { depth, name: name.to_owned(), node: Some(node) });
            if has_children { session.children(path).await?.unwrap_or_default() } else { Vec::new() }
        }
        Err(Failure::Refused(refusal)) => {
            lines.push(TreeLine { depth, name: format!("{name}: {refusal}"), node: None });
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    names.sort_unstable();
    let more = names.len().saturating_sub(limit);
    names.truncate(limit);
    for name in names {
        Box::pin(branch(session, &paths::join(path, &name), &name, depth + 1, limit, lines)).await?;
    }
    if more > 0 {
        lines.push(TreeLine { depth: depth + 1, name: format!("{more} more"), node: None });
    }
    Ok(())
}
