//! A user's access keys, as IAM tells of them.

use tokio::time::{Instant, timeout_at};
use turnlock_aws::iam::primitives::DateTimeFormat;
use turnlock_aws::iam::types::StatusType;
use turnlock_aws::{ACCESS_KEY_ID, Asked, Refusal, SECRET_ACCESS_KEY, Session};
use turnlock_kit::{Credential, Fault, Kind, Secret};

use crate::CHANGE_WITHIN;

/// One user's keys.
pub(crate) struct Keys<'a> {
    pub(crate) session: &'a Session,
    pub(crate) login: &'a str,
}

/// A key without its secret.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) active: bool,
    /// In seconds since 1970, by AWS's clock.
    pub(crate) created: i64,
}

/// When a key was last used.
#[derive(Debug, Clone)]
pub(crate) enum Use {
    Never,
    Last {
        at: i64,
        told: String,
        service: String,
    },
    /// It could not be asked.
    Unknown(Fault),
}

impl Use {
    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// A key that AWS has just made.
pub(crate) struct Made {
    pub(crate) id: String,
    secret: Secret,
}

impl Made {
    pub(crate) fn credential(self) -> Credential {
        Credential::empty().with(ACCESS_KEY_ID, Secret::new(self.id)).with(SECRET_ACCESS_KEY, self.secret)
    }
}

impl Keys<'_> {
    fn asked(&self, action: &'static str) -> Asked {
        Asked::new(action, format!("the IAM user \"{}\"", self.login))
    }

    /// All of them.
    pub(crate) async fn list(&self) -> Result<Vec<Key>, Fault> {
        let mut keys = Vec::new();
        let mut marker = None;
        loop {
            let request = self.session.ask.list_access_keys().user_name(self.login).set_marker(marker.take());
            let answer = request
                .send()
                .await
                .map_err(|error| self.session.refusal(self.asked("iam:ListAccessKeys"), error).fault)?;
            keys.extend(answer.access_key_metadata().iter().filter_map(|key| {
                Some(Key {
                    id: key.access_key_id()?.to_owned(),
                    active: key.status() != Some(&StatusType::Inactive),
                    created: key.create_date()?.secs(),
                })
            }));
            marker = answer.marker().filter(|_| answer.is_truncated()).map(str::to_owned);
            if marker.is_none() {
                return Ok(keys);
            }
        }
    }

    /// When this one was last used, as far as AWS has noticed yet.
    pub(crate) async fn last_use(&self, key: &Key) -> Use {
        let answer = match self.session.ask.get_access_key_last_used().access_key_id(&key.id).send().await {
            Ok(answer) => answer,
            Err(error) => {
                return Use::Unknown(self.session.refusal(self.asked("iam:GetAccessKeyLastUsed"), error).fault);
            }
        };
        let used = answer.access_key_last_used();
        match used.and_then(|used| used.last_used_date().map(|at| (used, at))) {
            None => Use::Never,
            Some((used, at)) => Use::Last {
                at: at.secs(),
                told: at.fmt(DateTimeFormat::DateTime).unwrap_or_default(),
                service: used.service_name().to_owned(),
            },
        }
    }

    /// A key in words.
    pub(crate) fn told(&self, key: &Key, used: &Use) -> String {
        let days = (self.session.now() - key.created).max(0) / (24 * 60 * 60);
        let inactive = if key.active { "" } else { ", inactive" };
        let used = match used {
            Use::Never => "never used".to_owned(),
            Use::Last { told, service, .. } => format!("last used {told} for {service}"),
            Use::Unknown(_) => "it cannot be told when it was last used".to_owned(),
        };
        format!("access key {}: {days} days old{inactive}, {used}", key.id)
    }

    /// Who used a key after that time, for more than what a rotation itself asks.
    pub(crate) fn used_by_others_since(&self, since: Option<i64>, used: &Use) -> Option<String> {
        match used {
            Use::Last { at, told, service } if since.is_some_and(|since| *at > since) => {
                (!matches!(service.as_str(), "iam" | "sts")).then(|| format!("{service}, {told}"))
            }
            _ => None,
        }
    }

    /// Lets AWS make one. Sent once.
    pub(crate) async fn create(&self, until: Instant) -> Result<Made, Refusal> {
        let request = self.session.change.create_access_key().user_name(self.login).send();
        let answer = match timeout_at(until, request).await {
            Ok(answer) => answer.map_err(|error| self.session.refusal(self.asked("iam:CreateAccessKey"), error))?,
            Err(_) => return Err(self.unanswered("iam:CreateAccessKey")),
        };
        let mut key = answer.access_key.ok_or_else(|| {
            let message =
                format!("{} made an access key for \"{}\" and did not show it", self.session.server(), self.login);
            Refusal::unclear(Fault::new(Kind::Unsupported, message))
        })?;
        let secret = Secret::new(std::mem::take(&mut key.secret_access_key));
        Ok(Made { id: key.access_key_id, secret })
    }

    /// Makes one unusable.
    pub(crate) async fn deactivate(&self, id: &str) -> Result<(), Fault> {
        let change = &self.session.change;
        let request = change.update_access_key().user_name(self.login).access_key_id(id).status(StatusType::Inactive);
        match timeout_at(Instant::now() + CHANGE_WITHIN, request.send()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.session.refusal(self.asked("iam:UpdateAccessKey"), error).fault),
            Err(_) => Err(self.unanswered("iam:UpdateAccessKey").fault),
        }
    }

    /// Removes one; what is gone already is as good.
    pub(crate) async fn delete(&self, id: &str, until: Instant) -> Result<(), Refusal> {
        let request = self.session.change.delete_access_key().user_name(self.login).access_key_id(id).send();
        let error = match timeout_at(until, request).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => self.session.refusal(self.asked("iam:DeleteAccessKey"), error),
            Err(_) => self.unanswered("iam:DeleteAccessKey"),
        };
        if error.fault.kind == Kind::NotFound { Ok(()) } else { Err(error) }
    }

    fn unanswered(&self, action: &str) -> Refusal {
        let message = format!("{} did not answer {action} in time", self.session.server());
        Refusal::unclear(Fault::new(Kind::Timeout, message))
    }
}
