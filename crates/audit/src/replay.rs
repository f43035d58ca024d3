//! The tree as it was at each zxid, below one chroot.

use std::collections::{BTreeMap, HashMap};

use znode::paths;

use super::txn::{Body, Op, Txn};

/// A znode at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// Its data.
    pub data: Vec<u8>,
    /// How often the data was set.
    pub version: i32,
    /// The transaction that created it.
    pub czxid: i64,
    /// The session that it ends with; 0 for none.
    pub owner: i64,
    /// When its data was set last, in milliseconds since 1970 by ZooKeeper's clock.
    pub set_ms: i64,
}

/// The tree below a chroot.
///
/// ZooKeeper logs only operations that it could apply. If one of them cannot be applied here, ZooKeeper had lost
/// transactions that it had committed before. Version 3.8.0 can do so when servers crash while they join
/// (ZOOKEEPER-4643).
#[derive(Debug, Default)]
pub struct Tree {
    chroot: String,
    nodes: BTreeMap<String, Znode>,
    ephemerals: HashMap<i64, Vec<String>>,
    /// Operations that cannot have been applied to this tree.
    pub contradictions: Vec<String>,
}

/// What one operation did to the tree below the chroot; paths are without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Created.
    Created(String),
    /// Set; this is what it was.
    Set(String, Znode),
    /// Deleted; this is what it was.
    Deleted(String, Znode),
}

impl Effect {
    /// Where.
    pub fn path(&self) -> &str {
        match self {
            Effect::Created(path) | Effect::Set(path, _) | Effect::Deleted(path, _) => path,
        }
    }
}

impl Tree {
    /// An empty tree; `chroot` is a path, or `""`.
    pub fn new(chroot: &str) -> Self {
        Tree { chroot: chroot.trim_end_matches('/').to_owned(), ..Tree::default() }
    }

    /// The znode at a path.
    pub fn get(&self, path: &str) -> Option<&Znode> {
        self.nodes.get(path)
    }

    /// The znodes right below a path, by name.
    pub fn children<'t>(&'t self, path: &'t str) -> impl Iterator<Item = (&'t str, &'t Znode)> {
        let prefix = format!("{path}/");
        let from = self.nodes.range(prefix.clone()..);
        let below = from.map_while(move |(p, node)| Some((p.strip_prefix(&prefix)?, node)));
        below.filter(|(name, _)| !name.contains('/'))
    }

    /// The paths of what ends with a session.
    pub fn owned_by(&self, session: i64) -> &[String] {
        self.ephemerals.get(&session).map_or(&[], Vec::as_slice)
    }

    /// Applies a transaction; what it did, in its order.
    pub fn apply(&mut self, txn: &Txn) -> Vec<Effect> {
        if let Body::CloseSession(_) = txn.body {
            let owned = self.ephemerals.remove(&txn.session).unwrap_or_default();
            return owned.iter().filter_map(|path| self.delete(path)).collect();
        }
        let mut effects = Vec::new();
        for op in txn.applied() {
            let (path, must_exist) = match op {
                Op::Create { path, .. } => (path, false),
                Op::Set { path, .. } | Op::Delete(path) => (path, true),
                Op::Check(_) | Op::Other(_) => continue,
            };
            let Some(path) = self.below(path) else { continue };
            if self.nodes.contains_key(&path) != must_exist {
                let what = if must_exist { "changes, but it does not exist" } else { "creates, but it exists" };
                self.contradictions.push(format!("{path}, which zxid {:#x} {what}", txn.zxid));
            }
            effects.extend(self.apply_op(op, txn));
        }
        effects
    }

    fn apply_op(&mut self, op: &Op, txn: &Txn) -> Option<Effect> {
        match op {
            Op::Create { path, data, ephemeral } => {
                let path = self.below(path)?;
                let owner = if *ephemeral { txn.session } else { 0 };
                if *ephemeral {
                    self.ephemerals.entry(owner).or_default().push(path.clone());
                }
                let node = Znode { data: data.clone(), version: 0, czxid: txn.zxid, owner, set_ms: txn.time_ms };
                self.nodes.insert(path.clone(), node);
                Some(Effect::Created(path))
            }
            Op::Set { path, data, version } => {
                let path = self.below(path)?;
                let node = self.nodes.get_mut(&path)?;
                let now = Znode { data: data.clone(), version: *version, set_ms: txn.time_ms, ..*node };
                let before = std::mem::replace(node, now);
                Some(Effect::Set(path, before))
            }
            Op::Delete(path) => {
                let path = self.below(path)?;
                self.delete(&path)
            }
            Op::Check(_) | Op::Other(_) => None,
        }
    }

    fn delete(&mut self, path: &str) -> Option<Effect> {
        let node = self.nodes.remove(path)?;
        if let Some(owned) = self.ephemerals.get_mut(&node.owner) {
            owned.retain(|other| other != path);
        }
        Some(Effect::Deleted(path.to_owned(), node))
    }

    /// A path of the log as seen from below the chroot; `None` outside it.
    pub fn below(&self, path: &str) -> Option<String> {
        let below = paths::below(&self.chroot, path)?;
        (!below.is_empty()).then(|| format!("/{}", below.trim_start_matches('/')))
    }
}
