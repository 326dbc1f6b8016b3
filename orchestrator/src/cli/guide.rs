//! `turnlock` without a command: where one stands, and what to type next.

use super::Context;
use crate::failure::{Failure, exit};

const BEFORE_THE_VAULT: &str = "\
A vault comes first; this one is opened by a key file, which is found there by itself from then on:

  turnlock vault init --key-file {key}

Then a record, from Keeper's export or by hand:

  turnlock import keeper export.json
  turnlock add \"Orders database\" --login app --url postgres://db1.example.com --password

Then look, and rotate:

  turnlock check \"Orders database\"
  turnlock rotate \"Orders database\"";

const WITH_A_VAULT: &str = "\
  turnlock list                      every record
  turnlock check \"Orders database\"   log in and tell what could go wrong; changes nothing
  turnlock rotate \"Orders database\"  replace its credential, proven by a new log-in
  turnlock status                    what is open, with the next step";

pub(super) fn run(context: &Context) -> Result<u8, Failure> {
    let config = &context.config;
    let vault = config.vault.display();
    let steps = if config.vault.exists() {
        format!("The vault is {vault}.\n\n{WITH_A_VAULT}")
    } else {
        let key = config.default_key_file.as_ref().map_or("vault.key".into(), |file| file.to_string_lossy());
        format!("There is no vault at {vault} yet. {}", BEFORE_THE_VAULT.replace("{key}", &key))
    };
    context.report.note(&format!(
        "Turnlock rotates any credential and loses none.\n\n{steps}\n\n\
         turnlock doctor looks for what is missing or wrong, turnlock --help lists every command."
    ));
    Ok(exit::USAGE)
}
