//! What a record of the transaction log says.
//!
//! The encoding is ZooKeeper's own, "jute": big-endian integers; strings and buffers behind their length, -1 for none;
//! vectors behind their count. Source: `zookeeper.jute`, `TxnHeader` and the records of `org.apache.zookeeper.txn`.

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Who sent it.
    pub session: i64,
    /// Its place in the order of everything.
    pub zxid: i64,
    /// When, in milliseconds since 1970 on the clock of ZooKeeper's leader.
    pub time_ms: i64,
    /// What it did.
    pub body: Body,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A session began, with its timeout in milliseconds.
    CreateSession(i32),
    /// A session ended, by its own wish or by expiry; its ephemerals are named, where the server writes them.
    CloseSession(Vec<String>),
    /// A single operation.
    Op(Op),
    /// All of it, in one step.
    Multi(Vec<Op>),
    /// A multi that was refused: the operation that was at fault, and ZooKeeper's code for why.
    RefusedMulti {
        /// Which operation, counted from 0.
        at: usize,
        /// The code.
        code: i32,
        /// The operations before it, which had no effect.
        before: Vec<Op>,
        /// How many operations there were in all.
        ops: usize,
    },
    /// A single operation that was refused, with the code.
    Refused(i32),
    /// Something that herds do not use.
    Other(i32),
}

/// One operation that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A znode was created.
    Create {
        /// Where.
        path: String,
        /// With which data.
        data: Vec<u8>,
        /// Whether it ends with its session.
        ephemeral: bool,
    },
    /// A znode was deleted.
    Delete(String),
    /// A znode's data was set.
    Set {
        /// Where.
        path: String,
        /// To what.
        data: Vec<u8>,
        /// Its version since.
        version: i32,
    },
    /// A znode was there.
    Check(String),
    /// Something that herds do not use.
    Other(i32),
}

/// Refused because the znode was absent.
pub const NO_NODE: i32 = -101;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const SET_DATA: i32 = 5;
const CHECK: i32 = 13;
const MULTI: i32 = 14;
const CREATE_2: i32 = 15;
const CREATE_CONTAINER: i32 = 19;
const DELETE_CONTAINER: i32 = 20;
const CREATE_TTL: i32 = 21;
const ERROR: i32 = -1;
const CREATE_SESSION: i32 = -10;
const CLOSE_SESSION: i32 = -11;
/// The digest of the tree that follows each body since 3.6: a version and a sum.
const DIGEST_BYTES: usize = 12;

impl Txn {
    /// Decodes the bytes of one record: header, body, perhaps a digest.
    pub fn decode(bytes: &[u8]) -> Result<Txn, String> {
        let mut reader = Reader { rest: bytes };
        let session = reader.long()?;
        let _cxid = reader.int()?;
        let (zxid, time_ms, kind) = (reader.long()?, reader.long()?, reader.int()?);
        let body = match kind {
            CREATE_SESSION => Body::CreateSession(reader.int()?),
            CLOSE_SESSION if reader.rest.len() <= DIGEST_BYTES => Body::CloseSession(Vec::new()),
            CLOSE_SESSION => {
                let count = reader.count()?;
                Body::CloseSession((0..count).map(|_| reader.string()).collect::<Result<_, _>>()?)
            }
            ERROR => Body::Refused(reader.int()?),
            MULTI => multi(&mut reader)?,
            kind => match op(kind, &mut reader)? {
                Op::Other(kind) => Body::Other(kind),
                op => Body::Op(op),
            },
        };
        Ok(Txn { session, zxid, time_ms, body })
    }

    /// The operations that took effect.
    pub fn applied(&self) -> &[Op] {
        match &self.body {
            Body::Op(op) => std::slice::from_ref(op),
            Body::Multi(ops) => ops,
            Body::CreateSession(_)
            | Body::CloseSession(_)
            | Body::RefusedMulti { .. }
            | Body::Refused(_)
            | Body::Other(_) => &[],
        }
    }
}

/// A refused multi is logged with the operations before the fault as they were asked for, the code of the fault, and
/// "runtime inconsistency" for those behind it. None of it was applied.
fn multi(reader: &mut Reader<'_>) -> Result<Body, String> {
    let mut ops = Vec::new();
    let mut fault = None;
    let count = reader.count()?;
    for at in 0..count {
        let kind = reader.int()?;
        let mut body = Reader { rest: reader.buffer()? };
        if kind == ERROR {
            let code = body.int()?;
            if code != 0 && fault.is_none() {
                fault = Some((at, code));
            }
        } else if fault.is_none() {
            ops.push(op(kind, &mut body)?);
        }
    }
    Ok(match fault {
        None => Body::Multi(ops),
        Some((at, code)) => Body::RefusedMulti { at, code, before: ops, ops: count },
    })
}

fn op(kind: i32, reader: &mut Reader<'_>) -> Result<Op, String> {
    Ok(match kind {
        CREATE | CREATE_2 => {
            let (path, data) = (reader.string()?, reader.buffer()?.to_vec());
            reader.acl()?;
            Op::Create { path, data, ephemeral: reader.byte()? != 0 }
        }
        CREATE_CONTAINER | CREATE_TTL => {
            Op::Create { path: reader.string()?, data: reader.buffer()?.to_vec(), ephemeral: false }
        }
        DELETE | DELETE_CONTAINER => Op::Delete(reader.string()?),
        SET_DATA => Op::Set { path: reader.string()?, data: reader.buffer()?.to_vec(), version: reader.int()? },
        CHECK => Op::Check(reader.string()?),
        kind => Op::Other(kind),
    })
}

/// Reads jute from the front of some bytes.
pub(super) struct Reader<'b> {
    pub(super) rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], String> {
        let missing = || format!("{count} bytes expected, {} left", self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn int(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_be_bytes)
    }

    fn count(&mut self) -> Result<usize, String> {
        let count = self.int()?.max(0);
        // No element is shorter than four bytes: a count beyond that is garbage, not a reason to allocate.
        if count as usize > self.rest.len() / 4 {
            Err(format!("{count} elements cannot follow"))
        } else {
            Ok(count as usize)
        }
    }

    pub(super) fn buffer(&mut self) -> Result<&'b [u8], String> {
        match self.int()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length).map_err(|_| format!("a length of {length}"))?),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        String::from_utf8(self.buffer()?.to_vec()).map_err(|error| error.to_string())
    }

    fn acl(&mut self) -> Result<(), String> {
        for _ in 0..self.count()? {
            self.int()?;
            self.buffer()?;
            self.buffer()?;
        }
        Ok(())
    }
}
