//! The transaction logs of one server or of an ensemble, read into one history.
//!
//! A log file `log.<first zxid>` is a header ("ZKLG", version 2, database id) and records: the Adler-32 sum of the
//! bytes, their length, the bytes, and "B". ZooKeeper allocates files ahead, so zeroes follow the last record; after a
//! kill it may be torn. Source: `FileTxnLog.java`.
//!
//! In an ensemble every server logs what it was proposed, also what was never committed: the last proposals of a leader
//! that died, which stay in its file when it comes back and is sent a snapshot. A record that a majority logged was
//! committed. A record that fewer servers logged was committed only if one of these went on from it without a gap: if
//! the next record in its log is the next one of all that were committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::txn::{Reader, Txn};

/// Why the logs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no log.
    #[error("{0} holds no transaction log (log.* in it or in version-2)")]
    NoLog(PathBuf),
    /// The operating system refused.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// Why it was not.
        error: std::io::Error,
    },
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: PathBuf,
    /// The byte at which the record begins.
    pub offset: usize,
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it says.
    pub txn: Txn,
    /// Where it stands.
    pub line: Line,
}

/// Everything that was logged, in the order of zxids.
#[derive(Debug, Default)]
pub struct History {
    /// The records that count.
    pub records: Vec<Record>,
    /// Why parts of the history may be missing; a verdict on it is unknown at best.
    pub gaps: Vec<String>,
    /// Records that only a minority logged, and that were never committed.
    pub uncommitted: usize,
    /// Files that end in the middle of a record, as a kill leaves them.
    pub torn: usize,
    /// How many files were read.
    pub files: usize,
}

impl History {
    /// Reads the logs in the given folders, each the data folder of one server.
    pub fn read(folders: &[&Path]) -> Result<History, LogError> {
        let mut history = History::default();
        let mut servers = Vec::new();
        for folder in folders {
            let mut records = BTreeMap::new();
            for file in log_files(folder)? {
                history.files += 1;
                history.read_file(&file, &mut records)?;
            }
            servers.push(records);
        }
        history.merge(servers);
        Ok(history)
    }

    fn read_file(&mut self, path: &Path, records: &mut BTreeMap<i64, Record>) -> Result<(), LogError> {
        let bytes = fs::read(path).map_err(|error| LogError::Unreadable { path: path.to_owned(), error })?;
        let name = path.display();
        let mut reader = Reader { rest: &bytes };
        match (reader.int(), reader.int(), reader.long()) {
            (Ok(0x5a4b_4c47), Ok(2), Ok(_)) => {}
            // A server killed right after it created the file leaves it empty.
            _ if bytes.iter().all(|byte| *byte == 0) => return Ok(()),
            _ => {
                self.gaps.push(format!("{name} is no transaction log of version 2"));
                return Ok(());
            }
        }
        while !reader.rest.is_empty() {
            let offset = bytes.len() - reader.rest.len();
            match next_record(&mut reader) {
                Ok(None) => break,
                Ok(Some(bytes)) => match Txn::decode(bytes) {
                    Ok(txn) => {
                        let line = Line { file: path.to_owned(), offset };
                        records.insert(txn.zxid, Record { txn, line });
                    }
                    Err(error) => self.gaps.push(format!("{name} at byte {offset}: {error}")),
                },
                Err(damage) => {
                    // Nothing behind it: the last write before a kill. Otherwise the file is damaged.
                    match damage {
                        Damage::Torn => self.torn += 1,
                        Damage::Sum => self.gaps.push(format!("{name} at byte {offset}: the checksum is wrong")),
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, servers: Vec<BTreeMap<i64, Record>>) {
        let majority = servers.len() / 2 + 1;
        let zxids: BTreeSet<i64> = servers.iter().flat_map(|log| log.keys().copied()).collect();
        let mut counts: BTreeSet<i64> = BTreeSet::new();
        for zxid in zxids.into_iter().rev() {
            let after = counts.range(zxid + 1..).next().copied();
            let went_on = |log: &BTreeMap<i64, Record>| {
                let next = log.range(zxid + 1..).next().map(|(next, _)| *next);
                log.contains_key(&zxid) && next.is_some() && next == after
            };
            let copies = servers.iter().filter(|log| log.contains_key(&zxid)).count();
            if copies >= majority || servers.iter().any(went_on) {
                counts.insert(zxid);
            } else {
                self.uncommitted += 1;
            }
        }
        let mut all: BTreeMap<i64, Record> = servers.into_iter().flatten().collect();
        all.retain(|zxid, _| counts.contains(zxid));
        self.records = all.into_values().collect();
        self.look_for_gaps();
    }

    /// Zxids of one epoch are consecutive, and an epoch begins at 1.
    fn look_for_gaps(&mut self) {
        let epoch = |zxid: i64| zxid >> 32;
        let mut before: Option<i64> = None;
        for record in &self.records {
            let zxid = record.txn.zxid;
            let expected = match before {
                Some(before) if epoch(before) == epoch(zxid) => counter(before) + 1,
                _ => 1,
            };
            if counter(zxid) != expected {
                self.gaps.push(format!("nothing is logged right before zxid {zxid:#x}"));
            }
            before = Some(zxid);
        }
    }
}

/// The lower half of a zxid: its place in its epoch.
fn counter(zxid: i64) -> i64 {
    zxid & 0xffff_ffff
}

enum Damage {
    Torn,
    Sum,
}

/// The bytes of the next record; `None` where only allocated space is left.
fn next_record<'b>(reader: &mut Reader<'b>) -> Result<Option<&'b [u8]>, Damage> {
    if reader.rest.iter().take(12).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (Ok(sum), Ok(bytes)) = (reader.long(), reader.buffer()) else { return Err(Damage::Torn) };
    let (end, rest) = reader.rest.split_first().ok_or(Damage::Torn)?;
    let whole = *end == b'B';
    if sum == i64::from(adler32(bytes)) && whole {
        reader.rest = rest;
        return Ok(Some(bytes));
    }
    // What is behind a torn record was never written: all zeroes.
    let torn = !whole || reader.rest.iter().skip(1).all(|byte| *byte == 0);
    Err(if torn { Damage::Torn } else { Damage::Sum })
}

/// Adler-32 (RFC 1950, section 8.2).
fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for chunk in bytes.chunks(5552) {
        for byte in chunk {
            a += u32::from(*byte);
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    b << 16 | a
}

fn log_files(folder: &Path) -> Result<Vec<PathBuf>, LogError> {
    let mut found = Vec::new();
    for place in [folder.to_owned(), folder.join("version-2")] {
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && place != folder => continue,
            Err(error) => return Err(LogError::Unreadable { path: place, error }),
        };
        for entry in entries {
            let path = entry.map_err(|error| LogError::Unreadable { path: place.clone(), error })?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.strip_prefix("log.").is_some_and(|zxid| i64::from_str_radix(zxid, 16).is_ok()) {
                found.push(path);
            }
        }
    }
    if found.is_empty() { Err(LogError::NoLog(folder.to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(zxids: &[i64]) -> BTreeMap<i64, Record> {
        let record = |zxid: &i64| {
            let txn = Txn { session: 1, zxid: *zxid, time_ms: 0, body: super::super::txn::Body::CreateSession(1) };
            (*zxid, Record { txn, line: Line { file: PathBuf::new(), offset: 0 } })
        };
        zxids.iter().map(record).collect()
    }

    #[test]
    fn what_only_a_minority_logged_was_never_committed() {
        const NEXT_EPOCH: i64 = 1 << 32;
        let mut history = History::default();
        // The third server led, proposed 3, died, was sent a snapshot of the next epoch, and took part in the one after.
        let (next, after) = (NEXT_EPOCH + 1, 2 * NEXT_EPOCH + 1);
        let others = server(&[1, 2, next, after]);
        history.merge(vec![others.clone(), others, server(&[1, 2, 3, after])]);
        let counted: Vec<i64> = history.records.iter().map(|record| record.txn.zxid).collect();
        assert_eq!(counted, [1, 2, next, after]);
        assert_eq!((history.uncommitted, history.gaps.len()), (1, 0));
    }

    #[test]
    fn what_a_new_leader_alone_had_logged_became_history_with_it() {
        const NEXT_EPOCH: i64 = 1 << 32;
        let mut history = History::default();
        // The first server alone logged 2 and 3, then led; the others were sent a snapshot with both.
        let others = server(&[1, NEXT_EPOCH + 1]);
        history.merge(vec![server(&[1, 2, 3, NEXT_EPOCH + 1]), others, server(&[1])]);
        assert_eq!((history.records.len(), history.uncommitted), (4, 0));
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(b""), 1);
    }
}
