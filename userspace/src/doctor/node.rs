//! The node that this config is for, if it runs already.

use std::io::ErrorKind;

use crate::config::Config;
use crate::control::{self, ClientError, SOCKET_NAME, Status};

/// Whether a node of this config runs.
#[derive(Debug)]
pub(super) enum Node {
    /// It answered.
    Running(Box<Status>),
    /// Nobody answers where it would.
    Absent,
    /// Its socket is there, and may not be asked by this user.
    Hidden,
}

/// What a node's state means for what it holds: a port, the place of the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// What is held here is the node's own.
    Node,
    /// It is somebody else's.
    Other,
    /// Nobody can tell.
    Unknown,
}

impl Node {
    pub(super) fn ask(config: &Config) -> Self {
        Self::of(control::fetch(&config.node.run_dir.join(SOCKET_NAME)))
    }

    fn of(answer: Result<Status, ClientError>) -> Self {
        match answer {
            Ok(status) => Self::Running(Box::new(status)),
            Err(ClientError::Connect { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                Self::Hidden
            }
            Err(_) => Self::Absent,
        }
    }

    pub(super) const fn status(&self) -> Option<&Status> {
        match self {
            Self::Running(status) => Some(status),
            Self::Absent | Self::Hidden => None,
        }
    }

    pub(super) const fn holder(&self) -> Holder {
        match self {
            Self::Running(_) => Holder::Node,
            Self::Absent => Holder::Other,
            Self::Hidden => Holder::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_node_that_may_not_be_asked_is_neither_there_nor_absent() {
        let refused = |kind| {
            let path = "/run/weir/weir.sock".into();
            Node::of(Err(ClientError::Connect { path, source: io::Error::from(kind) })).holder()
        };
        assert_eq!(refused(ErrorKind::PermissionDenied), Holder::Unknown);
        assert_eq!(refused(ErrorKind::NotFound), Holder::Other);
        assert_eq!(refused(ErrorKind::ConnectionRefused), Holder::Other);
    }
}
