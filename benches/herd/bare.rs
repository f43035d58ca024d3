//! The ceiling: what ZooKeeper does for a bare loop of calls, without any framework logic.
//!
//! *Life of a task*: the znodes, sizes and multis that a task of the other sections needs. For every 249 tasks: created with
//! their payloads (as many as one multi of ours holds), written to a worker's list, payloads read, completed, outcomes read
//! and removed: six requests, one after another, from the sessions of a client, a leader and a worker. Some such batches
//! are under way at once; the best depth counts. Nothing is planned, run or delivered, and nothing watched.
//!
//! *Watched*: the same, while a recursive watch each tells the leader and the client what was created and deleted, as it
//! must: four events a task. What is lost between the two is the price of events, and nothing of ours.

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tokio::task::JoinHandle;
use zookeeper_client as zk;

use super::processes::{Meter, micros_each};
use super::{PAYLOAD, Run};

const BATCH: u32 = 249;
const TASKS: u32 = 200 * BATCH;
const OUTCOME: &[u8] = br#"{"status":"done","worker":"worker-0badcafe","attempts":1,"result":0.0}"#;

/// Measures, and sets what the others are compared to.
pub fn measure(run: &mut Run) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bare = Bare::connect(run.address).await;
        bare.lives("warm", 8, true).await;
        bare.creates("warm-creates").await;
        let server = run.server;
        let (mut best, mut best_watched) = (0.0_f64, 0.0_f64);
        let columns = ["under way", "tasks/s", "server CPU", "watched tasks/s", "server CPU, w."];
        let mut table =
            run.report.table("ceiling: the life of a task in bare multis; CPU in microseconds a task", &columns);
        for depth in [1, 2, 4, 8, 16] {
            let mut figures = [0.0; 4];
            for watched in [false, true] {
                let meter = Meter::start(server);
                let took = bare.lives(&format!("depth{depth}-{watched}"), depth, watched).await;
                let at = 2 * usize::from(watched);
                (figures[at], figures[at + 1]) = (1e6 / micros_each(took, TASKS), meter.each_us(TASKS));
            }
            let [rate, cpu, watched_rate, watched_cpu] = figures;
            table.row(&[f64::from(depth), rate, cpu, watched_rate, watched_cpu]);
            (best, best_watched) = (best.max(rate), best_watched.max(watched_rate));
        }
        drop(table);
        (run.ceiling, run.watched_ceiling) = (best, best_watched);
        let columns = ["creates/s", "one write p50 us", "p99 us", "one read p50 us"];
        let mut table =
            run.report.table("ceiling: single creates of 64 bytes, 256 under way; one call alone", &columns);
        let rate = 1e6 / micros_each(bare.creates("creates").await, TASKS);
        let (writes, reads) = serial_calls(&bare.client, 1_000).await;
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        table.row(&[rate, us(writes[500]), us(writes[990]), us(reads[500])]);
    });
}

/// How long each of so many writes of one znode took, one after another, and then each of as many reads; sorted.
pub async fn serial_calls(client: &zk::Client, count: usize) -> (Vec<Duration>, Vec<Duration>) {
    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    client.create("/bare-serial", b"", &persistent).await.expect("created");
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        client.set_data("/bare-serial", PAYLOAD.as_bytes(), None).await.expect("set");
        writes.push(began.elapsed());
    }
    for _ in 0..count {
        let began = Instant::now();
        client.get_data("/bare-serial").await.expect("read");
        reads.push(began.elapsed());
    }
    client.delete("/bare-serial", None).await.expect("deleted");
    writes.sort_unstable();
    reads.sort_unstable();
    (writes, reads)
}

struct Bare {
    client: zk::Client,
    leader: zk::Client,
    worker: zk::Client,
}

impl Bare {
    async fn connect(address: &str) -> Bare {
        let connect = async || zk::Client::connect(address).await.expect("ZooKeeper is up");
        Bare { client: connect().await, leader: connect().await, worker: connect().await }
    }

    /// Creates znodes one by one, without waiting for one before the next; then removes them.
    async fn creates(&self, root: &str) -> Duration {
        let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        self.client.create(&format!("/{root}"), b"", &persistent).await.expect("created");
        let began = Instant::now();
        let create = |n: u32| {
            let path = format!("/{root}/{n:010}");
            let persistent = &persistent;
            async move { self.client.create(&path, PAYLOAD.as_bytes(), persistent).await.expect("created") }
        };
        stream::iter(0..TASKS).map(create).buffer_unordered(256).for_each(async |_| {}).await;
        let took = began.elapsed();
        for batch in 0..TASKS / BATCH {
            let mut remove = self.client.new_multi_writer();
            (batch * BATCH..(batch + 1) * BATCH)
                .for_each(|n| remove.add_delete(&format!("/{root}/{n:010}"), None).expect("a path"));
            remove.commit().await.expect("removed");
        }
        self.client.delete(&format!("/{root}"), None).await.expect("deleted");
        took
    }

    /// The lives of `TASKS` tasks, `depth` batches of them under way at once.
    async fn lives(&self, job: &str, depth: u32, watched: bool) -> Duration {
        let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        for path in [format!("/{job}"), format!("/{job}/tasks"), format!("/{job}/data"), format!("/{job}/worker")] {
            self.client.create(&path, b"", &persistent).await.expect("created");
        }
        let watches = if watched { vec![&self.client, &self.leader] } else { Vec::new() };
        let watching = watches.into_iter().map(|client| {
            let (client, path) = (client.clone(), format!("/{job}/tasks"));
            tokio::spawn(async move {
                let mut watch = client.watch(&path, zk::AddWatchMode::PersistentRecursive).await.expect("watched");
                loop {
                    watch.changed().await;
                }
            })
        });
        let watching: Vec<JoinHandle<()>> = watching.collect();
        tokio::time::sleep(Duration::from_millis(50)).await; // until the watches are there
        let began = Instant::now();
        let some = |first: u32| async move {
            for batch in (first..TASKS / BATCH).step_by(depth as usize) {
                self.life(job, batch * BATCH..(batch + 1) * BATCH).await;
            }
        };
        join_all((0..depth).map(some)).await;
        let took = began.elapsed();
        watching.iter().for_each(JoinHandle::abort);
        for path in [format!("/{job}/tasks"), format!("/{job}/data"), format!("/{job}/worker"), format!("/{job}")] {
            self.client.delete(&path, None).await.expect("deleted");
        }
        took
    }

    async fn life(&self, job: &str, numbers: std::ops::Range<u32>) {
        let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        let task = |n: u32| format!("/{job}/tasks/{n:010}");
        let data = |n: u32| format!("/{job}/data/{n:010}");

        let mut submit = self.client.new_multi_writer();
        submit.add_check_version(&format!("/{job}"), 0).expect("a path");
        for n in numbers.clone() {
            submit.add_create(&data(n), PAYLOAD.as_bytes(), &persistent).expect("a path");
            submit.add_create(&task(n), b"", &persistent).expect("a path");
        }
        submit.commit().await.expect("submitted");

        let list: Vec<String> = numbers.clone().map(|n| format!("\"sleep-0badcafe/{n:010}\"")).collect();
        let mut assign = self.leader.new_multi_writer();
        assign.add_check_version(&format!("/{job}"), -1).expect("a path");
        assign.add_set_data(&format!("/{job}/worker"), list.join(",").as_bytes(), None).expect("a path");
        assign.commit().await.expect("assigned");

        let read = async |client: &zk::Client| {
            let mut read = client.new_multi_reader();
            numbers.clone().for_each(|n| read.add_get_data(&data(n)).expect("a path"));
            read.commit().await.expect("read");
        };
        read(&self.worker).await;

        let mut complete = self.worker.new_multi_writer();
        complete.add_check_version(&format!("/{job}/worker"), -1).expect("a path");
        for n in numbers.clone() {
            complete.add_delete(&task(n), Some(0)).expect("a path");
            complete.add_set_data(&data(n), OUTCOME, Some(0)).expect("a path");
        }
        complete.commit().await.expect("completed");

        read(&self.client).await;
        let mut collect = self.client.new_multi_writer();
        numbers.clone().for_each(|n| collect.add_delete(&data(n), Some(1)).expect("a path"));
        collect.commit().await.expect("collected");
    }
}
