//! The ground floor: parts that every room of the daemon may use, and that use no room.
//!
//! ```text
//! data_dir, private              directories of the daemon: paths, locks, permissions
//! config_error, duration         values of the configuration
//! error_chain, url_secrets       texts for the log and for people
//! backoff, chance, clock         pauses, random numbers, the wall clock
//! background, map_concurrently   threads
//! shares                         limits that all clients share
//! percent, read_now,             URL paths, files in the page cache,
//! reloaded, volume               files that change, free space
//! ```

mod background;
mod backoff;
mod chance;
mod clock;
mod config_error;
mod data_dir;
pub(crate) mod duration;
mod error_chain;
mod map_concurrently;
mod percent;
mod private;
mod read_now;
mod reloaded;
mod shares;
mod url_secrets;
mod volume;

pub(crate) use background::in_background;
pub(crate) use backoff::Backoff;
pub(crate) use chance::{random_fraction, random_number};
pub(crate) use clock::seconds_since_epoch;
pub use config_error::ConfigError;
pub use data_dir::DataDir;
pub(crate) use data_dir::{LockError, lock_directory, sweep};
pub(crate) use error_chain::chain;
pub(crate) use map_concurrently::map_concurrently;
pub(crate) use percent::decode_percent;
pub(crate) use private::create_private;
pub(crate) use read_now::read_now;
pub(crate) use reloaded::Reloaded;
pub(crate) use shares::{Permit, Shares};
pub(crate) use url_secrets::redact;
pub(crate) use volume::Volume;
