//! What a path of the herd is: a row of the protocol's table of the tree.

use tree::{
    BelowTasks, DATA, JobId, MASTER, ROOTS, TASKS, TaskId, WORKERS, WorkerId, at_number, below_tasks, is_ephemeral,
    key_path, later_job,
};
use znode::paths;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One of the four roots.
    Root,
    /// `/master/<name>-<uid>-<number>`.
    Candidate,
    /// `/workers/<worker>`, with its name.
    Worker(String),
    /// `/tasks/<job>`.
    Job(JobId),
    /// `/tasks/<job>/<n>`.
    Task(TaskId),
    /// `/tasks/<job>/client-<uid>`.
    Client(JobId),
    /// `/data/<job>`.
    Stored(JobId),
    /// `/data/<job>/<n>`: a payload, then an outcome.
    Payload(TaskId),
    /// `/data/<job>/<n>-live`.
    Live,
    /// `/data/<job>/<n>-at` and `calls`.
    Point(JobId),
    /// `/data/<job>/after-<later>`.
    Hold,
    /// `/data/@<key>`.
    Key,
    /// What does not follow the page, and is ignored.
    Other,
}

impl Place {
    /// Of a path without its chroot.
    pub(super) fn of(path: &str) -> Place {
        if ROOTS.contains(&path) {
            return Place::Root;
        }
        let below = |root| paths::below(root, path).filter(|below| !below.is_empty());
        if let Some(name) = below(MASTER) {
            let numbered = !name.contains('/') && paths::sequence(name).is_some();
            return if numbered { Place::Candidate } else { Place::Other };
        }
        if let Some(name) = below(WORKERS) {
            return if name.parse::<WorkerId>().is_ok() { Place::Worker(name.to_owned()) } else { Place::Other };
        }
        if let Some(below) = below(TASKS) {
            return match below_tasks(below) {
                Ok(BelowTasks::Job(job)) => Place::Job(job),
                Ok(BelowTasks::Task(task)) => Place::Task(task),
                Ok(BelowTasks::Client(job, _)) => Place::Client(job),
                Err(_) => Place::Other,
            };
        }
        let Some(below) = below(DATA) else { return Place::Other };
        let Some((job, name)) = below.split_once('/') else {
            return match below.parse() {
                Ok(job) => Place::Stored(job),
                Err(_) if path.starts_with(&key_path("")) => Place::Key,
                Err(_) => Place::Other,
            };
        };
        let Ok(job) = job.parse::<JobId>() else { return Place::Other };
        match below.parse() {
            Ok(task) => Place::Payload(task),
            Err(_) if at_number(name).is_some() || path == job.calls_path() => Place::Point(job),
            Err(_) if is_ephemeral(name) => Place::Live,
            Err(_) if later_job(name).is_some() => Place::Hold,
            Err(_) => Place::Other,
        }
    }

    /// Whether it ends with its session; `None` of what is ignored.
    pub(super) fn is_ephemeral(&self) -> Option<bool> {
        match self {
            Place::Candidate | Place::Worker(_) | Place::Client(_) | Place::Live | Place::Point(_) => Some(true),
            Place::Root | Place::Job(_) | Place::Task(_) | Place::Stored(_) | Place::Payload(_) => Some(false),
            Place::Hold | Place::Key => Some(false),
            Place::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_known_and_nothing_else() {
        let job: JobId = "j-1".parse().expect("valid");
        let rows = [
            ("/data", Place::Root),
            ("/master/m-0badcafe-0000000007", Place::Candidate),
            ("/workers/w-0badcafe", Place::Worker("w-0badcafe".to_owned())),
            ("/tasks/j-1", Place::Job(job.clone())),
            ("/tasks/j-1/0000000007", Place::Task(job.task(7))),
            ("/tasks/j-1/client-0badcafe", Place::Client(job.clone())),
            ("/data/j-1", Place::Stored(job.clone())),
            ("/data/j-1/0000000007", Place::Payload(job.task(7))),
            ("/data/j-1/0000000007-live", Place::Live),
            ("/data/j-1/0000000007-at", Place::Point(job.clone())),
            ("/data/j-1/calls", Place::Point(job)),
            ("/data/j-1/after-j-2", Place::Hold),
            ("/data/@k", Place::Key),
        ];
        for (path, place) in rows {
            assert_eq!(Place::of(path), place, "{path}");
        }
        for path in
            ["/", "/elsewhere", "/master/m-7", "/master/a/b-0000000007", "/workers/a/b", "/tasks/j-1/7", "/data/j-1/x"]
        {
            assert_eq!(Place::of(path), Place::Other, "{path}");
        }
    }
}
