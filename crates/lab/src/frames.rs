//! ZooKeeper's frames in a stream of bytes, in whatever pieces it comes.
//!
//! A frame is a length, 4 bytes, and so many bytes more. The first one of a connection asks for a session, or grants it.
//! Then a request begins with its number (*xid*) and its operation, and a reply with the number of the request that it
//! answers. Nothing else is looked at, so that a frame of any size is handed on while it still arrives: of one that has
//! begun only the few bytes that tell what it is are held back.

/// A longer frame is none, as ZooKeeper's text commands are (`ruok`, read as a length, is 1.9 GB): what follows is handed on
/// as it is.
const LENGTH_MAX: usize = 0x2000_0000;

/// Which way a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Requests,
    /// From the server.
    Replies,
}

/// What the beginning of a frame tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// The bytes after the length itself.
    pub length: usize,
    /// The number of the request; `None` in a connection's first frame, in one too short for it, and in what is no frame.
    pub xid: Option<i32>,
    /// The operation, of a request.
    pub operation: Option<i32>,
}

/// A frame, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What it is, where it begins here.
    pub head: Option<Head>,
    /// As they came.
    pub bytes: &'a [u8],
}

/// The frames of one connection, one way.
#[derive(Debug)]
pub struct Frames {
    way: Way,
    arrived: Vec<u8>,
    /// How much of `arrived` was handed out.
    taken: usize,
    /// How much of the present frame was not.
    rest: usize,
    is_first: bool,
}

impl Frames {
    /// Of a connection that begins.
    pub fn new(way: Way) -> Self {
        Frames { way, arrived: Vec::new(), taken: 0, rest: 0, is_first: true }
    }

    /// These bytes have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.arrived.drain(..self.taken);
        self.taken = 0;
        self.arrived.extend_from_slice(bytes);
    }

    /// The next piece, never a part of two frames; `None` until more has arrived.
    pub fn piece(&mut self) -> Option<Piece<'_>> {
        let head = if self.rest == 0 { Some(self.begin()?) } else { None };
        let from = self.taken;
        let length = self.rest.min(self.arrived.len() - from);
        self.taken += length;
        self.rest -= length;
        (length > 0).then(|| Piece { head, bytes: &self.arrived[from..from + length] })
    }

    /// What has arrived of a frame of which it cannot be told yet what it is.
    pub fn unfinished(&self) -> &[u8] {
        &self.arrived[self.taken..]
    }

    fn begin(&mut self) -> Option<Head> {
        let word = |n: usize| {
            let bytes = self.unfinished().get(4 * n..)?.first_chunk::<4>()?;
            Some(i32::from_be_bytes(*bytes))
        };
        let Some(length) = usize::try_from(word(0)?).ok().filter(|length| *length <= LENGTH_MAX) else {
            self.rest = usize::MAX;
            return Some(Head::default());
        };
        let words = match self.way {
            _ if self.is_first => 0,
            Way::Requests => 2,
            Way::Replies => 1,
        };
        if self.unfinished().len() < 4 + length.min(4 * words) {
            return None;
        }
        let field = |n: usize| if n <= words && 4 * n <= length { word(n) } else { None };
        let head = Head { length, xid: field(1), operation: field(2) };
        self.is_first = false;
        self.rest = 4 + length;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("a test's frame is short");
        [&length.to_be_bytes(), body].concat()
    }

    fn request(xid: i32, operation: i32, rest: &[u8]) -> Vec<u8> {
        frame(&[&xid.to_be_bytes(), &operation.to_be_bytes(), rest].concat())
    }

    /// The heads, and the bytes of each frame.
    fn parsed<'a>(way: Way, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Head>, Vec<Vec<u8>>, Vec<u8>) {
        let mut frames = Frames::new(way);
        let (mut heads, mut whole): (Vec<Head>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for chunk in chunks {
            frames.push(chunk);
            while let Some(piece) = frames.piece() {
                if let Some(head) = piece.head {
                    heads.push(head);
                    whole.push(Vec::new());
                }
                whole.last_mut().expect("a piece begins a frame or goes on with one").extend_from_slice(piece.bytes);
            }
        }
        (heads, whole, frames.unfinished().to_vec())
    }

    fn talk() -> Vec<Vec<u8>> {
        let connect = frame(&[0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0, 14]); // would read as a multi, if it were not the first
        vec![
            connect,
            request(1, 14, &[9; 300]),
            request(-2, 11, &[]),
            frame(&[]),
            frame(&[1, 2, 3]),
            request(2, 4, b"x"),
        ]
    }

    #[test]
    fn a_stream_cut_at_any_byte_is_the_same_frames() {
        let talk = talk();
        let stream = talk.concat();
        let head = |length, xid, operation| Head { length, xid, operation };
        let heads = vec![
            head(12, None, None),
            head(308, Some(1), Some(14)),
            head(8, Some(-2), Some(11)),
            head(0, None, None),
            head(3, None, None),
            head(9, Some(2), Some(4)),
        ];
        for at in 0..=stream.len() {
            let (first, second) = stream.split_at(at);
            assert_eq!(
                parsed(Way::Requests, [first, second]),
                (heads.clone(), talk.clone(), Vec::new()),
                "cut at {at}"
            );
        }
        assert_eq!(parsed(Way::Requests, stream.chunks(1)), (heads, talk, Vec::new()), "a byte at a time");
    }

    #[test]
    fn replies_have_a_number_and_no_operation() {
        let stream = [frame(&[7; 37]), request(5, 14, &[0; 8])].concat();
        let (heads, ..) = parsed(Way::Replies, [&stream[..]]);
        assert_eq!(heads[0].xid, None);
        assert_eq!((heads[1].xid, heads[1].operation), (Some(5), None));
    }

    #[test]
    fn a_huge_frame_is_handed_on_while_it_arrives() {
        let mut frames = Frames::new(Way::Requests);
        frames.push(&frame(&[0; 44]));
        assert_eq!(frames.piece().map(|piece| piece.bytes.len()), Some(48));
        frames.push(&(400_000_000_u32).to_be_bytes());
        assert_eq!(frames.piece(), None, "what it is is not known yet");
        frames.push(&[0, 0, 0, 1, 0, 0, 0, 14, 5]);
        let piece = frames.piece().expect("its beginning");
        assert_eq!(piece.head, Some(Head { length: 400_000_000, xid: Some(1), operation: Some(14) }));
        assert_eq!(piece.bytes.len(), 13);
        frames.push(&[5; 65_536]);
        assert_eq!(frames.piece(), Some(Piece { head: None, bytes: &[5; 65_536] }));
        assert_eq!(frames.piece(), None);
    }

    #[test]
    fn what_is_no_frame_is_handed_on_as_it_is() {
        for text in [&b"ruok"[..], b"This ZooKeeper instance is not currently serving requests", &[0xff; 30]] {
            let (heads, whole, unfinished) = parsed(Way::Replies, text.chunks(3));
            assert_eq!((heads, whole, unfinished), (vec![Head::default()], vec![text.to_vec()], Vec::new()));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_added_or_reordered(
            stream in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..400),
            sizes in proptest::collection::vec(1_usize..50, 1..20),
            way in prop_oneof![Just(Way::Requests), Just(Way::Replies)],
        ) {
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, left) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = left;
            }
            let (heads, whole, unfinished) = parsed(way, chunks);
            prop_assert!(unfinished.len() < 12);
            prop_assert_eq!([whole.concat(), unfinished].concat(), stream.clone());
            // However it is cut.
            prop_assert_eq!(heads, parsed(way, [&stream[..]]).0);
        }
    }
}
