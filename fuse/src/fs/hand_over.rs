//! Writes down what the kernel knows of a file system, and rebuilds it in another process.

use std::collections::HashMap;
use std::sync::Arc;

use super::directory::{DirectoryEntry, Listing, MadeFrom, OpenDirectory};
use super::inode::InodeChanges;
use super::open::OpenFile;
use super::{Fs, Ino, Node};
use crate::hand_over::{
    ContentState, FileState, HandOverError, InodeState, Loader, NodeState, OpenDirectoryState,
    OpenFileState, OpenedState, Saver, State, Text,
};
use crate::passthrough::Backing;
use crate::recovery::OpenSegment;
use crate::view::{FileContent, StaticFile, WorkTreeFile};

impl Fs {
    /// Adds the inodes that changed since `sent`: the inodes and lookups of an earlier message.
    /// Notes in `sent` the ones that it adds.
    pub(crate) fn save_inodes(
        &self,
        saver: &mut Saver,
        sent: &mut HashMap<Ino, u64>,
    ) -> Result<(), HandOverError> {
        let InodeChanges { new, recounted } = self.inodes.changes_since(sent);
        for (ino, lookups, node) in new {
            if let Some(node) = save_node(&node, saver)? {
                sent.insert(ino, lookups);
                let inode = InodeState { ino, lookups, node };
                saver.state.inodes.push(inode);
            }
        }
        saver.state.recounted = recounted;
        Ok(())
    }

    /// Adds open files and open directories to a state. No request may run meanwhile.
    pub(crate) fn save_handles(&self, saver: &mut Saver) -> Result<(), HandOverError> {
        let (next_file, files) = self.open_files.all();
        saver.state.next_file = next_file;
        for (handle, file) in files {
            let file = match &file {
                OpenFile::Bytes(bytes) => {
                    OpenedState::Content(ContentState::Bytes(saver.blob(bytes)))
                }
                OpenFile::Segment(segment) => {
                    OpenedState::Content(ContentState::Segment(saver.segment(segment)?))
                }
                OpenFile::WorkTree(file) => OpenedState::WorkTree(file.save(saver)?),
            };
            saver.state.files.push(OpenFileState { handle, file });
        }
        let (next_directory, directories) = self.open_directories.all();
        saver.state.next_directory = next_directory;
        for (handle, directory) in directories {
            let entries = directory.listing.as_ref().map(|listing| {
                let entries = listing.entries.iter().filter_map(|entry| {
                    let node = save_node(&entry.node, saver).transpose()?;
                    Some(node.map(|node| (Text(entry.name.clone()), node)))
                });
                entries.collect::<Result<Vec<_>, HandOverError>>()
            });
            let listing = entries.transpose()?;
            let ino = directory.ino;
            let directory = OpenDirectoryState {
                handle,
                ino,
                listing,
            };
            saver.state.directories.push(directory);
        }
        let mut backing = Vec::new();
        for (place, segment) in saver.segments().iter().enumerate() {
            let mut opens = segment.opens.lock();
            if let Some(id) = opens.detach() {
                backing.push((place, id));
            }
        }
        saver.state.backing = backing;
        Ok(())
    }

    /// Rebuilds inodes that another process wrote down, after those of an earlier message.
    pub(crate) fn restore_inodes(
        &self,
        inodes: Vec<InodeState>,
        recounted: Vec<(Ino, u64)>,
        loader: &Loader,
    ) -> Result<(), HandOverError> {
        let mut new = Vec::new();
        for InodeState { ino, lookups, node } in inodes {
            let node = load_node(node, loader)?;
            if node.ino() != ino {
                // The kernel would have two inodes for one file.
                return Err(HandOverError::state(
                    "the two versions of the program number inodes differently",
                ));
            }
            new.push((ino, lookups, node));
        }
        self.inodes.restore(InodeChanges { new, recounted });
        Ok(())
    }

    /// Rebuilds open files and open directories that another process wrote down.
    pub(crate) fn restore_handles(
        &self,
        state: State,
        loader: &Loader,
    ) -> Result<(), HandOverError> {
        for (place, id) in state.backing {
            let mut opens = loader.segment(place)?.opens.lock();
            opens.backing = Some(Backing::Detached(id));
        }
        let mut files = Vec::new();
        for OpenFileState { handle, file } in state.files {
            let file = match file {
                OpenedState::WorkTree(file) => {
                    OpenFile::WorkTree(Arc::new(WorkTreeFile::restore(file, loader)?))
                }
                OpenedState::Content(content) => match loader.content(&content)? {
                    FileContent::Bytes(bytes) => OpenFile::Bytes(bytes),
                    FileContent::Segment(segment) => OpenFile::Segment(segment),
                },
            };
            if let Some(segment) = file.segment() {
                let mut opens = segment.opens.lock();
                opens.count += 1;
                if let Some(journal) = &self.journal {
                    journal.note(&OpenSegment {
                        handle,
                        segment: segment.record().id,
                        backing: opens.detach(),
                    });
                }
            }
            files.push((handle, file));
        }
        self.open_files.restore(state.next_file, files);
        let mut directories = Vec::new();
        for OpenDirectoryState {
            handle,
            ino,
            listing,
        } in state.directories
        {
            let entries = listing.map(|entries| {
                let entries = entries.into_iter().map(|(Text(name), node)| {
                    let node = load_node(node, loader)?;
                    let attr = node.attr();
                    Ok(DirectoryEntry { name, attr, node })
                });
                entries.collect::<Result<Vec<_>, HandOverError>>()
            });
            let listing = entries.transpose()?.map(|entries| {
                let made_from = MadeFrom::AnotherProcess;
                Arc::new(Listing { entries, made_from })
            });
            directories.push((handle, OpenDirectory { ino, listing }));
        }
        self.open_directories
            .restore(state.next_directory, directories);
        Ok(())
    }
}

/// Describes a node. Returns `None` if its repository is not in the state: it was loaded a moment
/// ago, and the kernel has no answer about it yet.
fn save_node(node: &Node, saver: &mut Saver) -> Result<Option<NodeState>, HandOverError> {
    let repository = match node
        .repository()
        .map(|repository| saver.repository(repository))
    {
        Some(None) => return Ok(None),
        Some(Some(place)) => place,
        // The node below has none.
        None => 0,
    };
    Ok(Some(match node {
        Node::Names { area, prefix } => NodeState::Names {
            area: *area,
            prefix: prefix.clone(),
        },
        Node::Unloaded { area, name } => NodeState::Unloaded {
            area: *area,
            name: name.clone(),
        },
        Node::TreeDirectory { tree, path, .. } => NodeState::TreeDirectory {
            repository,
            tree: *tree,
            path: path.as_slice().into(),
        },
        Node::TreeFile {
            tree, path, file, ..
        } => NodeState::TreeFile {
            repository,
            tree: *tree,
            file: FileState {
                path: path.as_slice().into(),
                content: saver.content(&file.content)?,
                mtime: file.mtime,
            },
        },
        Node::WorkTreeDirectory { path, .. } => NodeState::WorkTreeDirectory {
            repository,
            path: path.as_slice().into(),
        },
        Node::WorkTreeFile { file, path, .. } => NodeState::WorkTreeFile {
            repository,
            path: path.as_slice().into(),
            file: file.save(saver)?,
        },
    }))
}

fn load_node(node: NodeState, loader: &Loader) -> Result<Node, HandOverError> {
    Ok(match node {
        NodeState::Names { area, prefix } => Node::Names { area, prefix },
        NodeState::Unloaded { area, name } => Node::Unloaded { area, name },
        NodeState::TreeDirectory {
            repository,
            tree,
            path,
        } => Node::TreeDirectory {
            repository: loader.repository(repository)?,
            tree,
            path: path.0,
        },
        NodeState::TreeFile {
            repository,
            tree,
            file,
        } => Node::TreeFile {
            repository: loader.repository(repository)?,
            tree,
            path: file.path.0,
            file: StaticFile {
                content: loader.content(&file.content)?,
                mtime: file.mtime,
            },
        },
        NodeState::WorkTreeDirectory { repository, path } => Node::WorkTreeDirectory {
            repository: loader.repository(repository)?,
            path: path.0,
        },
        NodeState::WorkTreeFile {
            repository,
            path,
            file,
        } => Node::WorkTreeFile {
            repository: loader.repository(repository)?,
            file: WorkTreeFile::restore(file, loader)?,
            path: path.0,
        },
    })
}
