//! The interface `tree`.

use folkmoot_core::plugin::TreeError;
use folkmoot_proto::{SessionId, client};

use crate::generated::folkmoot::plugin::tree;
use crate::state::CallState;
use crate::view::CallView;

type Answer<T> = wasmtime::Result<Result<T, tree::TreeError>>;

impl<V: CallView> tree::Host for CallState<V> {
    fn get(&mut self, path: String) -> Answer<tree::Node> {
        let view = self.enter()?;
        answer(view.read(&path).map(|(data, stat)| tree::Node {
            data,
            stat: stat.into(),
        }))
    }

    fn stat_of(&mut self, path: String) -> Answer<Option<tree::Stat>> {
        let view = self.enter()?;
        match view.read(&path) {
            Ok((_, stat)) => Ok(Ok(Some(stat.into()))),
            Err(TreeError::NoNode) => Ok(Ok(None)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    fn create(&mut self, path: String, data: Vec<u8>) -> Answer<u64> {
        self.create_node(path, data, None, false)
            .map(|answer| answer.map(|created| created.zxid))
    }

    fn create_sequential(&mut self, path: String, data: Vec<u8>) -> Answer<tree::Created> {
        self.create_node(path, data, None, true)
    }

    fn create_ephemeral(&mut self, path: String, data: Vec<u8>, owner: u64) -> Answer<u64> {
        self.create_node(path, data, Some(SessionId(owner)), false)
            .map(|answer| answer.map(|created| created.zxid))
    }

    fn create_ephemeral_sequential(
        &mut self,
        path: String,
        data: Vec<u8>,
        owner: u64,
    ) -> Answer<tree::Created> {
        self.create_node(path, data, Some(SessionId(owner)), true)
    }

    fn set(&mut self, path: String, data: Vec<u8>, expected: Option<u64>) -> Answer<u64> {
        let view = self.enter_to_write(path.len() + data.len())?;
        answer(view.set(&path, data, expected))
    }

    fn delete(&mut self, path: String, expected: Option<u64>) -> Answer<()> {
        let view = self.enter_to_write(path.len())?;
        answer(view.delete(&path, expected))
    }

    fn children(&mut self, path: String, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        let view = self.enter()?;
        answer(view.children(&path, after.as_deref(), limit))
    }
}

impl<V: CallView> CallState<V> {
    fn create_node(
        &mut self,
        path: String,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Answer<tree::Created> {
        let view = self.enter_to_write(path.len() + data.len())?;
        let created = view.create(&path, data, owner, sequential);
        answer(created.map(|(zxid, name)| tree::Created { zxid: zxid.0, name }))
    }
}

fn answer<T>(result: Result<T, TreeError>) -> Answer<T> {
    Ok(result.map_err(tree::TreeError::from))
}

impl From<TreeError> for tree::TreeError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::BadPath => Self::BadPath,
            TreeError::NoNode => Self::NoNode,
            TreeError::NodeExists => Self::NodeExists,
            TreeError::NoParent => Self::NoParent,
            TreeError::NotEmpty => Self::NotEmpty,
            TreeError::BadVersion { actual } => Self::BadVersion(actual),
            TreeError::EphemeralParent => Self::EphemeralParent,
            TreeError::OwnerNotOpen => Self::OwnerNotOpen,
            TreeError::TooLarge { what } => Self::TooLarge(what.to_owned()),
            TreeError::ReadOnly => Self::Other("read-only".to_owned()),
        }
    }
}

impl From<client::Stat> for tree::Stat {
    fn from(stat: client::Stat) -> Self {
        Self {
            czxid: stat.czxid.0,
            mzxid: stat.mzxid.0,
            pzxid: stat.pzxid.0,
            version: stat.version,
            cversion: stat.cversion,
            owner: stat.ephemeral_owner.map(|owner| owner.0),
            children: stat.num_children,
        }
    }
}
