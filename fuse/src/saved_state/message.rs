//! A state as bytes: JSON with the length of each blob, and the blobs.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{HandOverError, State};

#[derive(Serialize, Deserialize)]
pub(crate) struct Message<S> {
    pub(crate) blob_lens: Vec<u64>,
    pub(crate) state: S,
}

/// Returns a state with its blobs, as a message has them.
pub(crate) fn encode(state: &State, blobs: &[Arc<[u8]>]) -> Result<Vec<u8>, HandOverError> {
    let blob_lens = blobs.iter().map(|blob| blob.len() as u64).collect();
    let json = serde_json::to_vec(&Message { blob_lens, state }).map_err(HandOverError::state)?;
    let mut bytes = (json.len() as u64).to_ne_bytes().to_vec();
    bytes.extend(json);
    for blob in blobs {
        bytes.extend_from_slice(blob);
    }
    Ok(bytes)
}

/// Returns the state and the blobs in a message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Received, HandOverError> {
    let mut rest = bytes;
    let mut take = |len: u64| {
        let len = usize::try_from(len).map_err(HandOverError::state)?;
        let taken;
        (taken, rest) = rest.split_at_checked(len).ok_or(HandOverError::Ended)?;
        Ok::<_, HandOverError>(taken)
    };
    let len = <[u8; 8]>::try_from(take(8)?).map_err(HandOverError::state)?;
    let json = take(u64::from_ne_bytes(len))?;
    let message: Message<State> = serde_json::from_slice(json).map_err(HandOverError::state)?;
    let blobs = message.blob_lens.iter().map(|&len| Ok(take(len)?.into()));
    let blobs = blobs.collect::<Result<_, HandOverError>>()?;
    Ok(Received {
        state: message.state,
        blobs,
        descriptors: Vec::new(),
    })
}

/// A received state.
#[derive(Debug)]
pub(crate) struct Received {
    pub state: State,
    pub blobs: Vec<Arc<[u8]>>,
    pub descriptors: Vec<OwnedFd>,
}
