//! What stands in a directory, as bytes. It touches files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;

/// A file or directory, with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file's bytes.
    File(Vec<u8>),
    /// Where a symbolic link points.
    Link(String),
    /// What stands in a directory, by name.
    Directory(Image),
}

/// What stands in a directory, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image(pub BTreeMap<String, Node>);

/// A file or directory as it was found, with its number in the file system.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) inode: u64,
    pub(super) what: FoundNode,
}

#[derive(Debug)]
pub(super) enum FoundNode {
    File(Vec<u8>),
    Link(String),
    Directory(BTreeMap<String, Found>),
}

/// Reads a directory with the numbers of its files.
pub(super) fn find(path: &Path) -> io::Result<Found> {
    let found = fs::symlink_metadata(path)?;
    let what = if found.is_dir() {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            names.insert(entry.file_name().to_string_lossy().into_owned(), find(&entry.path())?);
        }
        FoundNode::Directory(names)
    } else if found.is_file() {
        FoundNode::File(fs::read(path)?)
    } else if found.is_symlink() {
        FoundNode::Link(fs::read_link(path)?.to_string_lossy().into_owned())
    } else {
        return Err(io::Error::other(format!("{} is no file, link or directory", path.display())));
    };
    Ok(Found { inode: found.ino(), what })
}

impl Found {
    fn node(self) -> Node {
        match self.what {
            FoundNode::File(bytes) => Node::File(bytes),
            FoundNode::Link(to) => Node::Link(to),
            FoundNode::Directory(names) => {
                Node::Directory(Image(names.into_iter().map(|(name, found)| (name, found.node())).collect()))
            }
        }
    }
}

impl Image {
    /// Reads what stands in a directory.
    ///
    /// # Errors
    /// It cannot be read, or holds something that is no file, link or directory.
    pub fn read(path: &Path) -> io::Result<Self> {
        match find(path)?.node() {
            Node::Directory(image) => Ok(image),
            _ => Err(io::Error::other(format!("{} is no directory", path.display()))),
        }
    }

    /// Puts this, and nothing else, into a directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::create_dir_all(path)?;
        for (name, node) in &self.0 {
            match node {
                // Its owner's alone, as some of a node's files have to be.
                Node::File(bytes) => OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path.join(name))?
                    .write_all(bytes)?,
                Node::Link(to) => symlink(to, path.join(name))?,
                Node::Directory(image) => image.write(&path.join(name))?,
            }
        }
        Ok(())
    }

    /// The paths of all files and links, relative to the directory.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, node) in &self.0 {
            match node {
                Node::File(_) | Node::Link(_) => paths.push(name.clone()),
                Node::Directory(image) => {
                    paths.extend(image.files().into_iter().map(|path| format!("{name}/{path}")));
                }
            }
        }
        paths
    }

    /// The bytes of a file by its path, or where a link points.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        match (self.0.get(first)?, rest) {
            (Node::File(bytes), None) => Some(bytes),
            (Node::Link(to), None) => Some(to.as_bytes()),
            (Node::Directory(image), Some(rest)) => image.file(rest),
            _ => None,
        }
    }

    /// Where this and another one differ: a path and how, a line each.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Vec<String> {
        let mut paths: Vec<String> = self.files();
        paths.extend(other.files());
        paths.sort();
        paths.dedup();
        let line = |path: String| match (self.file(&path), other.file(&path)) {
            (Some(here), Some(there)) if here == there => None,
            (Some(here), Some(there)) => {
                let at = here.iter().zip(there).position(|(a, b)| a != b);
                let (here, there) = (here.len(), there.len());
                Some(format!("{path}: {here} and {there} bytes, the first difference at {at:?}"))
            }
            (Some(_), None) => Some(format!("{path}: only here")),
            _ => Some(format!("{path}: only there")),
        };
        paths.into_iter().filter_map(line).collect()
    }
}
