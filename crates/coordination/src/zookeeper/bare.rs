//! A session without any of the safeguards of [`Session`](crate::Session): each call is sent as it is, at once, and
//! fails as it fails. For measuring a ZooKeeper service, and for nothing else.

use std::time::Duration;

use tokio::time::timeout;
use znode::Failure;
use zookeeper_client as zk;

use super::types::classify;
use crate::connect::ConnectString;

/// A session for measuring.
#[derive(Debug)]
pub struct Bare {
    client: zk::Client,
}

/// A one-shot watch on a znode's data.
#[derive(Debug)]
pub struct DataWatch {
    watcher: zk::OneshotWatcher,
}

impl DataWatch {
    /// Completes when the data was set.
    ///
    /// Errors: the znode was deleted instead, or the session is over.
    pub async fn changed(self) -> Result<(), Failure> {
        let event = self.watcher.changed().await;
        match event.event_type {
            zk::EventType::NodeDataChanged => Ok(()),
            other => Err(Failure::SessionOver(format!("a watch ended with {other:?} and not with a change"))),
        }
    }
}

impl Bare {
    /// Connects to the `first` server of the list, counted round, or to the next one that answers; stays with it.
    pub async fn connect(
        target: &ConnectString,
        first: usize,
        session_timeout: Duration,
        within: Duration,
    ) -> Result<Bare, Failure> {
        let mut failure = Failure::Unknown("no server is named".to_owned());
        for server in target.beginning_at(first) {
            let connector = zk::Client::connector().with_session_timeout(session_timeout).with_fail_eagerly();
            match timeout(within, connector.connect(server)).await {
                Ok(Ok(client)) => return Bare::below(client, target.chroot()),
                Ok(Err(error)) => failure = classify(error),
                Err(_) => {
                    let within = humantime::format_duration(within);
                    failure = Failure::Unknown(format!("no connection to {server} within {within}"));
                }
            }
        }
        Err(failure)
    }

    fn below(client: zk::Client, chroot: Option<&str>) -> Result<Bare, Failure> {
        let client = match chroot {
            None => client,
            Some(chroot) => client.chroot(chroot).map_err(|_| classify(zk::Error::BadArguments(&"chroot")))?,
        };
        Ok(Bare { client })
    }

    /// Creates a container, which the server removes by itself some time after its last child has gone.
    pub async fn create_container(&self, path: &str) -> Result<(), Failure> {
        let container = zk::CreateMode::Container.with_acls(zk::Acls::anyone_all());
        self.client.create(path, &[], &container).await.map(drop).map_err(classify)
    }

    /// Creates an ephemeral sequential znode; its path.
    pub async fn create(&self, prefix: &str, data: &[u8]) -> Result<String, Failure> {
        let ephemeral = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
        let (_, number) = self.client.create(prefix, data, &ephemeral).await.map_err(classify)?;
        Ok(format!("{prefix}{number}"))
    }

    /// Reads a znode.
    pub async fn read(&self, path: &str) -> Result<(), Failure> {
        self.client.get_data(path).await.map(drop).map_err(classify)
    }

    /// Reads a znode and watches its data.
    pub async fn read_and_watch(&self, path: &str) -> Result<DataWatch, Failure> {
        let (_, _, watcher) = self.client.get_and_watch_data(path).await.map_err(classify)?;
        Ok(DataWatch { watcher })
    }

    /// Sets a znode's data.
    pub async fn modify(&self, path: &str, data: &[u8]) -> Result<(), Failure> {
        self.client.set_data(path, data, None).await.map(drop).map_err(classify)
    }

    /// Deletes a znode.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.client.delete(path, None).await.map_err(classify)
    }

    /// Ends the session; waits for at most 2 s until the server has removed its ephemerals.
    pub async fn close(self) {
        let mut states = self.client.state_watcher();
        drop(self.client);
        let ended = async { while !states.changed().await.is_terminated() {} };
        let _ = timeout(Duration::from_secs(2), ended).await; // without an answer it times out there
    }
}
