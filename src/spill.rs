//! Large payloads and results, kept in a directory that all machines share; the tree holds where, how large, and a checksum.
//!
//! In a job with a `spill` directory each payload znode begins with a byte that says what follows: `=` the payload itself,
//! `@` a [`Reference`] as JSON. Files are written whole, under another name first, and named by their content or by the
//! attempt that wrote them, so that no two writers share one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::warn;
use tree::{JobId, Reference};

use crate::spawn::blocking;

/// Payloads up to so many bytes go into the tree also where there is a directory.
const INLINE_BYTES_MAX: usize = 64 * 1024;
const INLINE: u8 = b'=';
const REFERENCE: u8 = b'@';
/// The ends of our files' names.
const PAYLOAD: &str = ".payload";
const OUTCOME: &str = ".outcome";

/// What is kept there.
///
/// Errors: it cannot be read, or is not what was written.
pub fn load(kept: &Reference) -> Result<Vec<u8>, String> {
    let file = kept.file.display();
    let bytes = fs::read(&kept.file)
        .map_err(|e| format!("cannot read {file}: {e}; is the spill directory shared with this machine?"))?;
    if bytes.len() as u64 != kept.bytes || digest(&bytes) != kept.sha256 {
        return Err(format!("{file} is not what was written: its length or SHA-256 differs"));
    }
    Ok(bytes)
}

/// Keeps `bytes` under `<directory>/<job>/<name>`.
fn store(directory: &Path, job: &JobId, name: &str, bytes: &[u8]) -> std::io::Result<Reference> {
    let folder = directory.join(job.as_str());
    fs::create_dir_all(&folder)?;
    let (file, unfinished) = (folder.join(name), folder.join(format!("{name}.{:08x}", rand::random::<u32>())));
    if let Err(error) = write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &file)) {
        let _ = fs::remove_file(&unfinished); // on a full disk each further try would add one
        return Err(error);
    }
    Ok(Reference { file, bytes: bytes.len() as u64, sha256: digest(bytes) })
}

fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut writer = File::create(file)?;
    writer.write_all(bytes)?;
    writer.sync_all()
}

/// Whether a payload is kept in the directory.
pub(crate) fn is_large(payload: &[u8]) -> bool {
    payload.len() > INLINE_BYTES_MAX
}

/// Whether to unwrap this takes a file.
pub(crate) fn is_kept(stored: &[u8]) -> bool {
    stored.first() == Some(&REFERENCE)
}

/// A payload as it goes into the tree; a large one is kept in the directory.
pub fn wrap(directory: &Path, job: &JobId, payload: Vec<u8>) -> std::io::Result<Vec<u8>> {
    if !is_large(&payload) {
        return Ok([vec![INLINE], payload].concat());
    }
    let reference = store(directory, job, &format!("{}{PAYLOAD}", digest(&payload)), &payload)?;
    let json = serde_json::to_vec(&reference).map_err(std::io::Error::other)?;
    Ok([vec![REFERENCE], json].concat())
}

/// The payload that was wrapped.
///
/// Errors: it was not, or what is kept cannot be had.
pub fn unwrap(stored: &[u8]) -> Result<Vec<u8>, String> {
    match stored.split_first() {
        Some((&INLINE, payload)) => Ok(payload.to_vec()),
        Some((&REFERENCE, json)) => {
            let reference: Reference = serde_json::from_slice(json).map_err(|error| error.to_string())?;
            load(&reference)
        }
        _ => Err("a payload of a job with a spill directory begins with = or @".to_owned()),
    }
}

/// Keeps the result of an attempt, told from others by `attempt`.
pub fn keep_result(directory: &Path, job: &JobId, attempt: &str, result: &[u8]) -> std::io::Result<Reference> {
    store(directory, job, &format!("{attempt}{OUTCOME}"), result)
}

/// Removes what was kept for a job, and nothing else.
pub fn remove(directory: &Path, job: &JobId) {
    let folder = directory.join(job.as_str());
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(PAYLOAD) || name.contains(OUTCOME) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder); // stays where somebody else's files are in it
}

/// Does that elsewhere, and says so where it cannot.
pub(crate) async fn remove_aside(directory: PathBuf, job: JobId) {
    let folder = directory.join(job.as_str());
    if let Err(error) = blocking(move || remove(&directory, &job)).await {
        warn!(folder = %folder.display(), %error, "what was kept for a job stays there: remove it by hand");
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_comes_back_and_what_was_changed_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let job: JobId = "j-1".parse().expect("valid");
        for payload in [Vec::new(), b"@small".to_vec(), vec![7; INLINE_BYTES_MAX + 1]] {
            let stored = wrap(folder.path(), &job, payload.clone()).expect("written");
            assert!(stored.len() <= INLINE_BYTES_MAX + 1);
            assert_eq!(unwrap(&stored), Ok(payload));
        }
        let large = wrap(folder.path(), &job, vec![8; INLINE_BYTES_MAX + 1]).expect("written");
        let reference: Reference = serde_json::from_slice(&large[1..]).expect("a reference");
        fs::write(&reference.file, vec![9; INLINE_BYTES_MAX + 1]).expect("writable");
        assert!(unwrap(&large).expect_err("changed").contains("SHA-256"));
        assert!(unwrap(b"raw").is_err() && unwrap(b"").is_err() && unwrap(b"@{}").is_err());
        fs::write(folder.path().join("j-1/notes"), "somebody's").expect("writable");
        remove(folder.path(), &job);
        let left: Vec<_> = fs::read_dir(folder.path().join("j-1")).expect("it stays").flatten().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn what_cannot_be_kept_leaves_no_file_behind() {
        let (folder, job) = (tempfile::tempdir().expect("a folder"), "j-1".parse().expect("valid"));
        let kept = folder.path().join("j-1/3.outcome");
        fs::create_dir_all(kept.join("in the way")).expect("writable");
        assert!(keep_result(folder.path(), &job, "3", b"result").is_err());
        let left: Vec<_> = fs::read_dir(folder.path().join("j-1")).expect("it stays").flatten().collect();
        assert_eq!(left.iter().map(fs::DirEntry::path).collect::<Vec<_>>(), [kept]);
    }
}
