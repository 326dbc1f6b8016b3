//! Many records in one transaction: they go to the writing thread one by one,
//! so that what is held does not grow with their number.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};

use super::audit::event;
use super::broken::Broken;
use super::rows::Written;
use super::writer::{After, Txn};
use super::{LocalVault, writer_gone};
use crate::plan::Identity;
use crate::record::Record;
use crate::vault::beside::Keep;
use crate::vault::{Import, VaultError};

/// How many records may wait for the writing thread.
const AHEAD: usize = 64;

/// An import under way.
pub(super) struct Importing<'a> {
    path: &'a Path,
    records: SyncSender<Incoming>,
    answer: Receiver<Result<(), VaultError>>,
}

enum Incoming {
    Record(Box<Written>),
    /// Without it whatever came before is rolled back.
    End,
}

impl<'a> Importing<'a> {
    pub(super) fn begin(vault: &'a LocalVault) -> Result<Self, VaultError> {
        let (records, incoming) = mpsc::sync_channel(AHEAD);
        let answer = vault.queue(After::Nothing, move |txn| take(txn, &incoming))?;
        Ok(Self { path: vault.path(), records, answer })
    }

    /// Why the writing thread takes no more.
    fn ended(&self) -> VaultError {
        match self.answer.recv() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => writer_gone(),
        }
    }
}

impl Import for Importing<'_> {
    fn put(&mut self, record: &Record, identities: &[Identity]) -> Result<(), VaultError> {
        let written = Written::new(record, identities).map_err(|broken| broken.at(self.path, "written"))?;
        self.records.send(Incoming::Record(Box::new(written))).map_err(|_| self.ended())
    }

    fn commit(self: Box<Self>) -> Result<(), VaultError> {
        self.records.send(Incoming::End).map_err(|_| self.ended())?;
        self.answer.recv().unwrap_or_else(|_| Err(writer_gone()))
    }
}

fn take(txn: &mut Txn<'_>, incoming: &Receiver<Incoming>) -> Result<(), Broken> {
    loop {
        match incoming.recv() {
            Ok(Incoming::Record(written)) => put(txn, &written)?,
            Ok(Incoming::End) => return Ok(()),
            // Nobody waits for this answer any more.
            Err(_) => return Err(writer_gone().into()),
        }
    }
}

fn put(txn: &mut Txn<'_>, written: &Written) -> Result<(), Broken> {
    match txn.view.find_row(&written.uid)? {
        None => {
            txn.view.insert_record(written, txn.now)?;
        }
        Some(row) if txn.view.has_open(row.id)? => {
            return Err(VaultError::OpenRotation(written.uid.clone()).into());
        }
        Some(row) => {
            txn.replace(row, written, Keep::Secrets, &[], "imported over")?;
        }
    }
    txn.note(event("imported", Some(&written.uid), None, None))
}
