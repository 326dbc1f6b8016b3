//! Free ports on loopback.

use std::{
    hash::{BuildHasher, RandomState},
    net::TcpListener,
};

use crate::error::{LabError, Result};

/// Below the range from which the kernel takes ports for outgoing connections,
/// so that no client of a test that runs beside this one takes the port away.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port on 127.0.0.1 that nobody listened on a moment ago. Another process may
/// be faster, so whoever starts a server tries again with another one.
pub fn free() -> Result<u16> {
    let width = RANGE.end - RANGE.start;
    let start = u16::try_from(RandomState::new().hash_one(()) % u64::from(width)).unwrap_or(0);
    (0..width)
        .map(|step| RANGE.start + (start + step) % width)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| LabError::new("there is no free port between 20000 and 32000 on 127.0.0.1"))
}
