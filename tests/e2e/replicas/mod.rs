//! Several daemons that share nothing but a bucket.

mod equal;
