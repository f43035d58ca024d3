//! The client: submits jobs, waits for them, collects their outcomes, cleans up.
//!
//! | file | what it holds |
//! |---|---|
//! | `submit` | [`open`], and what it gives: [`Job`] submits tasks, [`Results`] receives their outcomes |
//! | `submitter`, `requests` | the task behind those two, and what it has asked of ZooKeeper; what it does next is decided in `decide::submission` |
//! | `admission` | how many tasks the tree takes |
//!
//! [`Client`] is for jobs that are known by their names, and for the herd:
//!
//! | file | what it holds |
//! |---|---|
//! | `wait`, `results` | waiting for a job; collecting its outcomes |
//! | `info` | a job looked at closely: info, explain |
//! | `logs` | what tasks print, while they run too |
//! | `manage` | cancel, retry, forget |
//! | `select` | which jobs and tasks a command means |
//! | `view` | what the herd looks like: status and tree |
//! | `health` | whether the herd serves |
//!
//! And for all of them:
//!
//! | file | what it holds |
//! |---|---|
//! | `stored` | what is stored of a task whose znode is gone |
//! | `finished`, `error` | what users are told: how tasks ended, and why a client cannot go on |

mod admission;
mod error;
mod finished;
mod health;
mod info;
mod logs;
mod manage;
mod requests;
mod results;
mod select;
mod stored;
mod submit;
mod submitter;
mod view;
mod wait;

pub use admission::{Limit, WhenFull};
pub use error::ClientError;
pub use finished::{Finished, FinishedStatus, Tally};
pub use info::{JobInfo, TaskInfo};
pub use logs::LogLine;
pub use select::{Selected, Selector};
pub use submit::{Job, JobSpec, Results, open};
pub use view::{Herd, JobView, MasterView, TreeLine, WorkerView, herd, tree};

use std::time::Duration;

use coordination::{Failure, Refusal, Session, SessionConfig};
use tree::{JobId, JobRecord, transitions};

/// How long the first session may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a new session may take when one ended.
const RECONNECT: Duration = Duration::from_secs(60);

/// A client that looks at jobs and the herd.
#[derive(Debug)]
pub struct Client {
    config: SessionConfig,
    session: Session,
}

impl Client {
    /// Connects within 10 s.
    pub async fn connect(config: &SessionConfig) -> Result<Self, ClientError> {
        Ok(Client { config: config.clone(), session: Session::connect(config, CONNECT).await? })
    }

    /// The session, for reading the tree.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Ends the session.
    pub async fn close(self) {
        self.session.close().await;
    }

    pub(super) async fn record(&self, job: &JobId) -> Result<(JobRecord, i32), ClientError> {
        let node = self.session.get(&job.path()).await?.ok_or_else(|| ClientError::NotFound(job.clone()))?;
        let malformed = |error| ClientError::Malformed { path: job.path(), error };
        Ok((JobRecord::from_json(&node.data).map_err(malformed)?, node.version))
    }
}

/// A client attends a job: an ephemeral znode shows it, so that nobody sweeps the job meanwhile. `client`: its path.
async fn attend(session: &Session, client: &str) -> Result<(), Failure> {
    match session.insist(transitions::attend(client)).await {
        // No job any more: whoever looks for it next will see.
        Ok(_) | Err(Failure::Refused(Refusal::NodeExists | Refusal::NoNode)) => Ok(()),
        Err(failure) => Err(failure),
    }
}
