//! Placeholder while the import is being written beside this.
use crate::record::Record;
/// .
pub struct Imported {
    /// .
    pub records: Vec<Record>,
    /// .
    pub losses: Vec<String>,
}
/// .
pub fn import(_text: &[u8]) -> Result<Imported, String> {
    Err("not yet".into())
}
/// .
pub fn export(_records: &[Record], _to: &mut Vec<u8>) -> std::io::Result<()> {
    Err(std::io::Error::other("not yet"))
}
