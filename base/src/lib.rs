//! The ground floor of daemon and mount: parts that their crates use, and that use none of them.
//!
//! ```text
//! data_dir, private              directories of the daemon: paths, locks, permissions
//! config_error, duration         values of the configuration
//! error_chain, url_secrets       texts for the log and for people
//! backoff, chance, clock         pauses, random numbers, the wall clock
//! counter                        numbers that only grow
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
mod counter;
mod data_dir;
pub mod duration;
mod error_chain;
mod map_concurrently;
mod percent;
mod private;
mod read_now;
mod reloaded;
mod shares;
mod url_secrets;
mod volume;

pub use background::in_background;
pub use backoff::Backoff;
pub use chance::{jitter, random_fraction, random_number};
pub use clock::seconds_since_epoch;
pub use config_error::ConfigError;
pub use counter::Counter;
pub use data_dir::DataDir;
pub use data_dir::{LockError, lock_directory, sweep};
pub use error_chain::chain;
pub use map_concurrently::map_concurrently;
pub use percent::decode_percent;
pub use private::create_private;
pub use read_now::read_now;
pub use reloaded::Reloaded;
pub use shares::{Permit, Shares};
pub use url_secrets::redact;
pub use volume::Volume;
