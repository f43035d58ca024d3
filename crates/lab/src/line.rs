//! A line between a process and ZooKeeper that can be cut, muted, slowed down, or cut instead of handing on a reply.
//!
//! It knows ZooKeeper's [frames](super::frames), so that it can tell which reply answers a certain request. To lose
//! that reply it hands on all that came before it, and ends the connection: the request has been carried out or
//! refused, and only who sent it does not know. Without a fault it hands on everything at once and in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::cut_replies::CutReplies;
use super::frames::{Frames, Head, Way};

/// ZooKeeper's code for a multi.
pub const MULTI: i32 = 14;
/// How much is read at once.
const READ_BYTES: usize = 1 << 16;
/// How long a client may take to close a connection that was ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

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
    /// Which replies to multis are not to arrive.
    schedule: Mutex<CutReplies>,
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
            schedule: Mutex::default(),
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

    /// Lets everything pass again, at once.
    pub fn mend(&self) {
        self.delay(Duration::ZERO);
        self.cut_reply_to(0);
        self.schedule(CutReplies::default());
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

    /// Lets the next request of this kind reach the server, and ends the connection instead of handing on its reply; 0
    /// takes that back.
    pub fn cut_reply_to(&self, operation: i32) {
        self.state.cut_reply_to.store(operation, Ordering::SeqCst);
    }

    /// Ends a connection instead of handing on these replies, to multis sent from now on. Takes the place of the schedule
    /// before.
    pub fn schedule(&self, replies: CutReplies) {
        *self.state.schedule() = replies;
    }

    /// How many replies were cut off, by both of these. Each had come.
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

    fn schedule(&self) -> MutexGuard<'_, CutReplies> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose reply may be cut off.
#[derive(Debug)]
struct Awaited {
    xid: i32,
    /// It is the next of its kind.
    is_next: bool,
    /// The schedule under which it was sent, where it counts there.
    schedule: Option<CutReplies>,
}

/// What the two directions of a connection share.
#[derive(Debug)]
struct Connection {
    state: Arc<State>,
    awaited: Mutex<VecDeque<Awaited>>,
    has_ended: AtomicBool,
}

impl Connection {
    fn awaited(&self) -> MutexGuard<'_, VecDeque<Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request, before the server sees it.
    fn note(&self, head: Head) {
        let (Some(xid), Some(operation)) = (head.xid, head.operation) else { return };
        let wanted = &self.state.cut_reply_to;
        let is_next =
            operation != 0 && wanted.compare_exchange(operation, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let schedule = (operation == MULTI).then(|| self.state.schedule().clone());
        let schedule = schedule.filter(|schedule| schedule.counts(head.length));
        if is_next || schedule.is_some() {
            self.awaited().push_back(Awaited { xid, is_next, schedule });
        }
    }

    /// Whether this reply is to be cut off.
    fn cuts(&self, head: Head) -> bool {
        let mut awaited = self.awaited();
        let found = awaited.iter().position(|request| head.xid == Some(request.xid));
        let Some(request) = found.and_then(|at| awaited.remove(at)) else { return false };
        request.schedule.is_some_and(|schedule| schedule.cuts()) | request.is_next
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
            let connection = Connection { state, awaited: Mutex::default(), has_ended: AtomicBool::new(false) };
            tokio::select! {
                () = requests(from_client, to_server, &connection) => {}
                () = replies(from_server, to_client, &connection) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, connection: &Connection) {
    let state = &connection.state;
    let (mut buffer, mut out) = (vec![0; READ_BYTES], Vec::new());
    let mut frames = Frames::new(Way::Requests);
    let mut is_lost = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if connection.has_ended.load(Ordering::SeqCst) {
            continue;
        }
        frames.push(&buffer[..read]);
        out.clear();
        while let Some(piece) = frames.piece() {
            if let Some(head) = piece.head {
                is_lost = state.drop_requests.load(Ordering::SeqCst);
                if !is_lost {
                    connection.note(head);
                }
            }
            if !is_lost {
                out.extend_from_slice(piece.bytes);
            }
        }
        state.hold_back().await;
        if to.write_all(&out).await.is_err() {
            return;
        }
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, connection: &Connection) {
    let state = &connection.state;
    let (mut buffer, mut out) = (vec![0; READ_BYTES], Vec::new());
    let mut frames = Frames::new(Way::Replies);
    let mut is_lost = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        frames.push(&buffer[..read]);
        out.clear();
        let mut is_cut = false;
        while let Some(piece) = frames.piece() {
            if let Some(head) = piece.head {
                is_lost = state.drop_replies.load(Ordering::SeqCst);
                is_cut = !is_lost && connection.cuts(head);
                if is_cut {
                    break;
                }
            }
            if !is_lost {
                out.extend_from_slice(piece.bytes);
            }
        }
        state.hold_back().await;
        if to.write_all(&out).await.is_err() {
            return;
        }
        if is_cut {
            // In good order: one that is closed with requests unread is reset, and what was handed on may be lost with it.
            connection.has_ended.store(true, Ordering::SeqCst);
            state.replies_cut.fetch_add(1, Ordering::SeqCst);
            let _ = to.shutdown().await;
            tokio::time::sleep(CLOSE_WITHIN).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: i32 = 1;

    fn frame(fields: &[i32], rest: usize) -> Vec<u8> {
        let fields: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        let length = u32::try_from(fields.len() + rest).expect("a test's frame is short");
        [&length.to_be_bytes(), &fields[..], &vec![7; rest]].concat()
    }

    /// The answer to the first request, and to one with this number.
    fn granted() -> Vec<u8> {
        frame(&[], 37)
    }
    fn reply(xid: i32) -> Vec<u8> {
        frame(&[xid], 12)
    }

    /// Answers every frame.
    async fn serve(listener: TcpListener) {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut is_first = true;
                while let Ok(length) = client.read_u32().await {
                    let mut body = vec![0; length as usize];
                    let Ok(_) = client.read_exact(&mut body).await else { return };
                    let xid = body.first_chunk::<4>().map(|xid| i32::from_be_bytes(*xid)).unwrap_or_default();
                    let answer = if std::mem::take(&mut is_first) { granted() } else { reply(xid) };
                    let Ok(()) = client.write_all(&answer).await else { return };
                }
            });
        }
    }

    async fn line() -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(serve(listener));
        Line::to(&address).await.expect("a port")
    }

    /// Sends all of it at once on a connection of its own, and reads so many bytes, or to the end.
    async fn say(line: &Line, requests: &[Vec<u8>], bytes: Option<usize>) -> Vec<u8> {
        let mut stream = TcpStream::connect(line.address()).await.expect("it listens");
        stream.write_all(&requests.concat()).await.expect("it is open");
        let mut heard = vec![0; bytes.unwrap_or_default()];
        let read = async {
            match bytes {
                Some(_) => stream.read_exact(&mut heard).await.map(drop),
                None => stream.read_to_end(&mut heard).await.map(drop),
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("in time").expect("no reset");
        heard
    }

    fn requests() -> Vec<Vec<u8>> {
        let multi = |xid, bytes| frame(&[xid, MULTI], bytes);
        let create = |xid| frame(&[xid, CREATE], 30);
        // The first one would be a multi, if it were a request.
        vec![
            multi(0, 36),
            create(1),
            multi(2, 10),
            create(3),
            multi(4, 300_000),
            create(5),
            multi(6, 20_000),
            create(7),
        ]
    }

    fn answers(last: i32) -> Vec<u8> {
        std::iter::once(granted()).chain((1..=last).map(reply)).collect::<Vec<_>>().concat()
    }

    #[tokio::test]
    async fn without_a_fault_everything_passes() {
        let line = line().await;
        let all = answers(7);
        assert_eq!(say(&line, &requests(), Some(all.len())).await, all);
        assert_eq!(line.replies_cut(), 0);
    }

    #[tokio::test]
    async fn the_replies_before_the_one_cut_off_are_handed_on() {
        let line = line().await;
        line.cut_reply_to(MULTI);
        assert_eq!(say(&line, &requests(), None).await, answers(1));
        line.cut_reply_to(CREATE);
        assert_eq!(say(&line, &requests(), None).await, answers(0));
        assert_eq!(line.replies_cut(), 2);
        let all = answers(7);
        assert_eq!(say(&line, &requests(), Some(all.len())).await, all, "one each");
    }

    #[tokio::test]
    async fn a_schedule_counts_large_multis_over_all_connections() {
        let line = line().await;
        line.schedule("1,3,4 over 8192".parse().expect("well formed"));
        assert_eq!(say(&line, &requests(), None).await, answers(3), "the first");
        let all = answers(7);
        let second = &requests()[..6];
        assert_eq!(say(&line, second, Some(answers(5).len())).await, answers(5), "the second passes");
        assert_eq!(say(&line, &requests(), None).await, answers(3), "the third");
        assert_eq!(say(&line, &requests(), None).await, answers(3), "the fourth");
        assert_eq!(say(&line, &requests(), Some(all.len())).await, all, "and no more");
        assert_eq!(line.replies_cut(), 3);
    }

    #[tokio::test]
    async fn what_a_mended_line_was_asked_for_is_forgotten() {
        let line = line().await;
        line.cut_reply_to(MULTI);
        line.schedule(CutReplies::new([1], 0));
        line.mend();
        let all = answers(7);
        assert_eq!(say(&line, &requests(), Some(all.len())).await, all);
    }
}
