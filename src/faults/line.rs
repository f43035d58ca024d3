//! A line between a process and ZooKeeper that can be cut, muted, slowed down, or cut between a request and its reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// ZooKeeper's code for a multi.
pub const MULTI: i32 = 14;

/// A TCP proxy on loopback.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    state: Arc<State>,
    cuts: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    is_cut: AtomicBool,
    drop_requests: AtomicBool,
    drop_replies: AtomicBool,
    /// The operation whose reply is not to arrive; 0 for none.
    cut_reply_to: AtomicI32,
    replies_cut: AtomicUsize,
    /// How long every chunk is held back, in milliseconds.
    delay_ms: AtomicU64,
    cuts: watch::Receiver<usize>,
}

impl Line {
    /// A line to `server`, an address.
    ///
    /// Errors: where no loopback port can be had.
    pub async fn to(server: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cuts, receiver) = watch::channel(0);
        let state = Arc::new(State {
            is_cut: AtomicBool::new(false),
            drop_requests: AtomicBool::new(false),
            drop_replies: AtomicBool::new(false),
            cut_reply_to: AtomicI32::new(0),
            replies_cut: AtomicUsize::new(0),
            delay_ms: AtomicU64::new(0),
            cuts: receiver,
        });
        tokio::spawn(accept(listener, server.to_owned(), state.clone()));
        Ok(Line { address, state, cuts })
    }

    /// What to connect to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection, and every new one, until mended.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    /// Ends every connection; new ones are served.
    pub fn interrupt(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Holds every chunk back for so long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets bytes pass again, at once.
    pub fn mend(&self) {
        self.delay(Duration::ZERO);
        self.state.is_cut.store(false, Ordering::SeqCst);
        self.state.drop_requests.store(false, Ordering::SeqCst);
        self.state.drop_replies.store(false, Ordering::SeqCst);
        self.interrupt(); // streams with a hole in them are of no use
    }

    /// Loses what goes to the server; connections stay open.
    pub fn drop_requests(&self) {
        self.state.drop_requests.store(true, Ordering::SeqCst);
    }

    /// Loses what comes from the server; connections stay open.
    pub fn drop_replies(&self) {
        self.state.drop_replies.store(true, Ordering::SeqCst);
    }

    /// Lets the next request of this kind reach the server, and ends the connection before its reply.
    pub fn cut_reply_to(&self, operation: i32) {
        self.state.cut_reply_to.store(operation, Ordering::SeqCst);
    }

    /// How many replies were cut off so.
    pub fn replies_cut(&self) -> usize {
        self.state.replies_cut.load(Ordering::SeqCst)
    }
}

impl State {
    async fn hold_back(&self) {
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
    }
}

async fn accept(listener: TcpListener, server: String, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.is_cut.load(Ordering::SeqCst) {
            continue; // closed at once
        }
        let (server, state) = (server.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
            let mut cuts = state.cuts.clone();
            cuts.mark_unchanged();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let muted = Arc::new(AtomicBool::new(false));
            tokio::select! {
                () = requests(from_client, to_server, state.clone(), muted.clone()) => {}
                () = replies(from_server, to_client, state.clone(), muted) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>, muted: Arc<AtomicBool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if state.drop_requests.load(Ordering::SeqCst) {
            continue;
        }
        let wanted = state.cut_reply_to.load(Ordering::SeqCst);
        let hit = wanted != 0 && holds(&buffer[..read], wanted);
        if hit {
            muted.store(true, Ordering::SeqCst);
            state.cut_reply_to.store(0, Ordering::SeqCst);
        }
        state.hold_back().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if hit {
            tokio::time::sleep(Duration::from_millis(100)).await; // time to be applied
            state.replies_cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>, muted: Arc<AtomicBool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if muted.load(Ordering::SeqCst) || state.drop_replies.load(Ordering::SeqCst) {
            continue;
        }
        state.hold_back().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    if muted.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
}

/// Whether one of the requests in `bytes`, each a length, a number and a code, has this code.
fn holds(bytes: &[u8], operation: i32) -> bool {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if rest.get(8..12) == Some(&operation.to_be_bytes()) {
            return true;
        }
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    false
}
