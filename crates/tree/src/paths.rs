//! The tree: every path of a herd is built and parsed here.
//!
//! ```text
//! /master/<name>-<uid>-<number>   a candidate for leadership
//! /workers/<name>-<uid>           a worker, with its assignments
//! /tasks/<job>                    a job's record
//! /tasks/<job>/<n>                a task that is waiting, running or dead
//! /tasks/<job>/client-<uid>       a client that attends the job
//! /data/<job>/<n>                 its payload (version 0), then its outcome (version 1)
//! /data/<job>/<n>-live            what is seen of it while it runs
//! /data/<job>/<n>-at              how far it is, where tasks of a job begin and end together
//! /data/<job>/calls               how far they may go
//! /data/<job>/after-<later>       a later job waits for this one
//! /data/@<key>                    which job has the key
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use znode::paths;

/// Where candidates for leadership queue.
pub const MASTER: &str = "/master";
/// Where workers register.
pub const WORKERS: &str = "/workers";
/// Where jobs and their outstanding tasks are.
pub const TASKS: &str = "/tasks";
/// Where payloads and outcomes are.
pub const DATA: &str = "/data";
/// The four roots, which are created once and never removed.
pub const ROOTS: [&str; 4] = [MASTER, WORKERS, TASKS, DATA];

/// What the znode of a client that attends a job begins with; its uid follows.
const CLIENT: &str = "client-";
/// What the name of an `after-<later>` begins with: the znode by which a later job keeps this one from being closed
/// until the leader has seen how it ended. The later job's id follows.
const AFTER: &str = "after-";
/// What the znode of a key begins with; the key follows.
const KEY: &str = "@";
/// What the znode of a running task ends with.
const LIVE: &str = "-live";
/// What the znode of a task ends with that begins and ends together with others.
const AT: &str = "-at";
/// The name of the znode that says how far they may go.
const CALLS: &str = "calls";
/// Digits of a task's number in its path.
const TASK_DIGITS: usize = 10;

/// A job's id, `<name>-<random>`: never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Arc<str>);

/// A worker's id, `<name>-<uid>`: never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

/// A task's id, `<job>/<n>`, `<n>` in ten digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// The number that the client chose.
    pub n: u32,
}

/// An entry of a worker's list: a task at the version of its znode. Written `<job>/<n>`, and `<job>/<n>@<version>`
/// where the version is not 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// The version of `/tasks/<job>/<n>` that is assigned.
    pub version: i32,
}

macro_rules! plain_id {
    ($id:ident, $what:literal) => {
        impl $id {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $id {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                if paths::is_plain(text) {
                    Ok($id(text.into()))
                } else {
                    Err(format!("'{text}' is no {}: 1 to 64 of A-Z a-z 0-9 . _ -", $what))
                }
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

plain_id!(JobId, "job");
plain_id!(WorkerId, "worker");

impl JobId {
    /// `/tasks/<job>`: the record.
    pub fn path(&self) -> String {
        paths::join(TASKS, &self.0)
    }

    /// `/data/<job>`.
    pub fn data_path(&self) -> String {
        paths::join(DATA, &self.0)
    }

    /// `/tasks/<job>/client-<uid>`: a client that attends it.
    pub fn client_path(&self, uid: &str) -> String {
        paths::join(&self.path(), &format!("{CLIENT}{uid}"))
    }

    /// `/data/<job>/after-<later>`: keeps this job until the leader has seen, for the later one, how it ended.
    pub fn after_path(&self, later: &JobId) -> String {
        paths::join(&self.data_path(), &format!("{AFTER}{later}"))
    }

    /// `/data/<job>/calls`: how far its tasks may go, where they begin and end together.
    pub fn calls_path(&self) -> String {
        paths::join(&self.data_path(), CALLS)
    }

    /// A task of this job.
    pub fn task(&self, n: u32) -> TaskId {
        TaskId { job: self.clone(), n }
    }
}

/// `/data/@<key>`: which job has the key.
pub fn key_path(key: &str) -> String {
    paths::join(DATA, &format!("{KEY}{key}"))
}

/// The later job, from the name of its `after-<later>`.
pub fn later_job(name: &str) -> Option<JobId> {
    name.strip_prefix(AFTER)?.parse().ok()
}

impl WorkerId {
    /// `/workers/<worker>`.
    pub fn path(&self) -> String {
        paths::join(WORKERS, &self.0)
    }
}

impl TaskId {
    /// `/tasks/<job>/<n>`.
    pub fn path(&self) -> String {
        paths::join(TASKS, &self.to_string())
    }

    /// `/data/<job>/<n>`.
    pub fn data_path(&self) -> String {
        paths::join(DATA, &self.to_string())
    }

    /// `/data/<job>/<n>-live`: what is seen of it while it runs.
    pub fn live_path(&self) -> String {
        format!("{}{LIVE}", self.data_path())
    }

    /// `/data/<job>/<n>-at`: how far it is, where tasks of a job begin and end together.
    pub fn at_path(&self) -> String {
        format!("{}{AT}", self.data_path())
    }
}

/// Whether this is the name of a child of `/tasks/<job>` that shows a client that attends it.
pub fn is_client(name: &str) -> bool {
    name.starts_with(CLIENT)
}

/// Whether this is the name of a child of `/data/<job>` that ends with a session, so that nobody needs to remove it.
pub fn is_ephemeral(name: &str) -> bool {
    name.ends_with(LIVE) || name.ends_with(AT) || name == CALLS
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:0width$}", self.job, self.n, width = TASK_DIGITS)
    }
}

/// A task's number from its znode's name: exactly ten digits.
pub fn task_number(name: &str) -> Result<u32, String> {
    let valid = name.len() == TASK_DIGITS && name.bytes().all(|b| b.is_ascii_digit());
    let number = if valid { name.parse().ok() } else { None };
    number.ok_or_else(|| format!("'{name}' is no task: {TASK_DIGITS} digits, at most {}", u32::MAX))
}

/// The number of the task whose `-at` this is.
pub fn at_number(name: &str) -> Option<u32> {
    task_number(name.strip_suffix(AT)?).ok()
}

/// Whether a task is among the names of a job's children.
pub fn has_tasks(names: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
    names.into_iter().any(|name| task_number(name.as_ref()).is_ok())
}

impl FromStr for TaskId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, n) = text.split_once('/').ok_or_else(|| format!("'{text}' is no task: <job>/<n>"))?;
        Ok(TaskId { job: job.parse()?, n: task_number(n)? })
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => self.task.fmt(f),
            version => write!(f, "{}@{version}", self.task),
        }
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            None => Ok(Assignment { task: text.parse()?, version: 0 }),
            Some((task, version)) => {
                let version = version.parse().map_err(|_| format!("'{text}' is no assignment: <job>/<n>@<version>"))?;
                Ok(Assignment { task: task.parse()?, version })
            }
        }
    }
}

/// What a path below `/tasks` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BelowTasks {
    /// `<job>`.
    Job(JobId),
    /// `<job>/<n>`.
    Task(TaskId),
    /// `<job>/client-<uid>`: a client that attends the job.
    Client(JobId, String),
}

/// Parses a path below `/tasks`, without its leading slash. What it refuses was written by somebody else.
pub fn below_tasks(path: &str) -> Result<BelowTasks, String> {
    match path.split_once('/') {
        None => path.parse().map(BelowTasks::Job),
        Some((job, name)) if is_client(name) && paths::is_plain(name) => {
            Ok(BelowTasks::Client(job.parse()?, name.to_owned()))
        }
        Some(_) => path.parse().map(BelowTasks::Task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_written_and_read_alike() {
        for text in ["job-1/0000000007", "job-1/0000000007@3", "a.b_c/4294967295"] {
            assert_eq!(text.parse::<Assignment>().expect("valid").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_task_of_ours_is_refused() {
        for text in
            ["", "job", "job/", "job/7", "job/00000000007", "job/4294967296", "job/000000000x", "j/0000000001/x"]
        {
            assert!(text.parse::<TaskId>().is_err(), "{text:?}");
        }
        for text in ["job/0000000001@", "job/0000000001@x", "job/0000000001@1@2"] {
            assert!(text.parse::<Assignment>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_are_those_of_the_protocol() {
        let task: TaskId = "j-1/0000000007".parse().expect("valid");
        assert_eq!(task.path(), "/tasks/j-1/0000000007");
        assert_eq!(task.data_path(), "/data/j-1/0000000007");
        assert_eq!(task.job.path(), "/tasks/j-1");
        assert_eq!(below_tasks("j-1"), Ok(BelowTasks::Job(task.job.clone())));
        assert_eq!(below_tasks("j-1/0000000007"), Ok(BelowTasks::Task(task)));
        assert!(below_tasks("j-1/a/b").is_err());
    }
}
