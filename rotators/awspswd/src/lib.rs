//! Sets the password with which an IAM user opens AWS's console: as somebody
//! who manages users, or as the user, by an access key of its own. Nobody can
//! be asked whether a password is right, for the console is no program's; so a
//! change is believed when IAM says that it was made.

mod rules;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::timeout;
use turnlock_aws::iam::config::http::HttpResponse;
use turnlock_aws::iam::error::{ProvideErrorMetadata, SdkError};
use turnlock_aws::{ACCESS_KEY_ID, Asked, Caller, ENVIRONMENT, Place, Refusal, SECRET_ACCESS_KEY, Session, Signer};
use turnlock_kit::protocol::operation::Prepared;
use turnlock_kit::{
    Admin, Change, Credential, CredentialField, Done, Fault, Finding, Findings, Kind, Mark, MayRotate, PASSWORD,
    Policy, Rotator, Secret, Severity, Threshold, Traits, Verdicts, VerifyBy,
};

use rules::Rules;

/// The console password of an IAM user.
#[derive(Debug)]
pub struct AwsPswd;

/// Which user, and who manages it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Account {
    /// The IAM user.
    pub login: String,
    /// Where AWS is, and who signs.
    #[serde(flatten)]
    pub place: Place,
    /// Open the console to a user who has no password yet.
    #[serde(default)]
    pub create_login_profile: bool,
}

/// A change whose answer takes longer is not known to have happened.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);

/// Who changes the password, and as whom.
struct Work {
    session: Session,
    caller: Caller,
    /// As the user, who has to show the old one.
    is_own: bool,
}

impl Work {
    async fn open(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Self, Fault> {
        let signer = Signer::choose(&account.place, &account.login, current, admin)?;
        let session = Session::open(&account.place, &signer).await?;
        let caller = session.caller().await.map_err(|refusal| refusal.fault)?;
        if account.place.aws_account_id.as_ref().is_some_and(|id| *id != caller.account) {
            let message =
                format!("{} is in the AWS account {}, which is not the record's", session.signer, caller.account);
            return Err(Fault::new(Kind::Conflict, message).hint("correct aws_account_id, or who signs"));
        }
        // The record's key may be a manager's as well as the user's own.
        let is_own =
            admin.is_none() && matches!(signer, Signer::Key { .. }) && caller.user() == Some(account.login.as_str());
        Ok(Self { session, caller, is_own })
    }

    /// Whether the user may open the console. As the user, that is for the
    /// change to say.
    async fn has_password(&self, account: &Account) -> Result<bool, Fault> {
        if self.is_own {
            return Ok(true);
        }
        match self.session.ask.get_login_profile().user_name(&account.login).send().await {
            Ok(_) => Ok(true),
            Err(error) => {
                let refusal = self.session.refusal(asked("iam:GetLoginProfile", account), error);
                // A user that is not there is refused in the same word.
                match refusal.fault.kind {
                    Kind::NotFound => self.exists(account).await.map(|()| false),
                    _ => Err(refusal.fault),
                }
            }
        }
    }

    async fn exists(&self, account: &Account) -> Result<(), Fault> {
        match self.session.ask.get_user().user_name(&account.login).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.session.refusal(asked("iam:GetUser", account), error).fault),
        }
    }

    /// What the AWS account asks of passwords.
    async fn rules(&self) -> Result<Rules, Fault> {
        let asked = Asked::new("iam:GetAccountPasswordPolicy", "the AWS account's password policy".to_owned());
        match self.session.ask.get_account_password_policy().send().await {
            Ok(answer) => Ok(answer.password_policy().map_or_else(Rules::default, Rules::from)),
            Err(error) => match self.session.refusal(asked, error) {
                Refusal { fault: Fault { kind: Kind::NotFound, .. }, .. } => Ok(Rules::default()),
                Refusal { fault: Fault { kind: Kind::Permission, .. }, .. } => Ok(Rules::unknown()),
                refusal => Err(refusal.fault),
            },
        }
    }

    /// Sends the change, once.
    async fn change(&self, account: &Account, how: &How<'_>, next: &Secret) -> Result<(), Refusal> {
        let (change, login) = (&self.session.change, account.login.as_str());
        #[expect(clippy::disallowed_methods, reason = "the request carries it over TLS")]
        let said = |secret: &Secret| secret.expose().to_owned();
        match how {
            How::AsTheUser(old) => {
                let request = change.change_password().old_password(said(old)).new_password(said(next));
                self.within("iam:ChangePassword", account, request.send()).await
            }
            How::Update => {
                let request = change.update_login_profile().user_name(login).password(said(next));
                self.within("iam:UpdateLoginProfile", account, request.send()).await
            }
            How::Create => {
                let request = change.create_login_profile().user_name(login).password(said(next));
                self.within("iam:CreateLoginProfile", account, request.send()).await
            }
        }
    }

    async fn within<T, E>(
        &self,
        action: &'static str,
        account: &Account,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<(), Refusal>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match timeout(CHANGE_WITHIN, request).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.session.refusal(asked(action, account), error)),
            Err(_) => {
                let message = format!("{} did not answer {action} in time", self.session.server());
                Err(Refusal::unclear(Fault::new(Kind::Timeout, message)))
            }
        }
    }
}

/// The one call that changes the password.
enum How<'a> {
    AsTheUser(&'a Secret),
    Update,
    Create,
}

fn asked(action: &'static str, account: &Account) -> Asked {
    Asked::new(action, format!("the IAM user \"{}\"", account.login))
}

impl Rotator for AwsPswd {
    type Account = Account;
    const PLUGIN: &'static str = "awspswd";
    const SUMMARY: &'static str = "Sets the console password of an IAM user.";
    const EXAMPLE_ACCOUNT: &'static str = r#"{"login": "ann", "aws_profile": "users"}"#;
    const CREDENTIAL: &'static [CredentialField] = &[
        PASSWORD,
        CredentialField {
            name: ACCESS_KEY_ID,
            option: "aws_key_id",
            mark: Mark::Current,
            description: "The id of the access key that signs: the user's own, or one of somebody who manages users.",
        },
        CredentialField {
            name: SECRET_ACCESS_KEY,
            option: "aws_key_secret",
            mark: Mark::Current,
            description: "That access key's secret.",
        },
    ];
    const SHOWN: &'static [&'static str] = &[ACCESS_KEY_ID];
    const ENVIRONMENT: &'static [&'static str] = ENVIRONMENT;

    fn traits(_: Option<&Account>) -> Traits {
        Traits {
            needs_current: false,
            verify: VerifyBy::None,
            policy_from_target: true,
            password: rules::limits(),
            ..Traits::password()
        }
    }

    async fn check(account: &Account, current: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let work = Work::open(account, current, admin).await?;
        let session = &work.session;
        let mut findings = account.place.findings();
        let mut find = |severity, message: String| findings.push(Finding { severity, message });
        let mut may_rotate = MayRotate::Unknown;
        find(Severity::Info, format!("{} asks: {}", session.signer, work.caller.arn));
        match (work.has_password(account).await?, account.create_login_profile) {
            (true, _) => {}
            (false, true) => {
                find(Severity::Warning, "the user cannot open the console yet, and will be able to".to_owned());
            }
            (false, false) => {
                may_rotate = MayRotate::No;
                find(Severity::Error, no_console(account).message);
            }
        }
        let rules = work.rules().await?;
        find(Severity::Info, rules.told());
        if work.is_own && rules.lets_users_change == Some(false) {
            find(
                Severity::Info,
                "the account lets users change their passwords only by a policy of their own".to_owned(),
            );
        }
        find(Severity::Info, "a new password is not proven: no program can open the console".to_owned());
        Ok(Findings {
            server: Some(session.server().to_owned()),
            tls: Some(format!("TLS, {}", session.believed())),
            // Whoever signs is known; the password itself is not asked for.
            authenticated: false,
            may_rotate,
            findings,
        })
    }

    async fn prepare(
        account: &Account,
        current: Option<&Credential>,
        admin: Option<&Admin>,
        policy: &Policy,
    ) -> Result<Prepared, Fault> {
        let nothing = Credential::empty();
        let work = Work::open(account, current.unwrap_or(&nothing), admin).await?;
        Ok(Prepared { policy: Some(work.rules().await?.narrow(policy.clone())?), ..Prepared::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        let next = change.next_password()?;
        rules::suits(next, &account.login)?;
        let work = Work::open(account, &change.current, change.admin.as_ref()).await?;
        let how = match (work.is_own, change.current.get(PASSWORD.name)) {
            (true, Some(old)) => How::AsTheUser(old),
            (true, None) => {
                let message = format!("\"{}\" has to show its old password, and the record has none", account.login);
                return Err(Fault::new(Kind::InvalidInput, message)
                    .hint("set the record's password, or let somebody who manages users set it: turnlock:admin"));
            }
            (false, _) if work.has_password(account).await? => How::Update,
            (false, _) if account.create_login_profile => How::Create,
            (false, _) => return Err(no_console(account)),
        };

        let crossed = threshold.cross().await?;
        match work.change(account, &how, next).await {
            Ok(()) => Ok(crossed.done()),
            Err(refusal) => {
                let fault = match (&how, refusal.fault.kind) {
                    // AWS has one word for both.
                    (How::AsTheUser(_), Kind::Permission) => Fault {
                        message: format!("\"{}\" may not change its password, or its old one is wrong", account.login),
                        ..refusal.fault
                    }
                    .hint(
                        "the user needs iam:ChangePassword; or let somebody who manages users set it: turnlock:admin",
                    ),
                    _ => refusal.fault,
                };
                Err(if refusal.is_definite { crossed.definitely_refused(fault) } else { fault })
            }
        }
    }

    async fn verify(account: &Account, _: &Credential, _: Option<&Admin>) -> Result<Verdicts, Fault> {
        let message = format!("AWS cannot be asked whether the password of \"{}\" is right", account.login);
        Err(Fault::new(Kind::Unsupported, message).hint("open the console by hand: no program may"))
    }
}

fn no_console(account: &Account) -> Fault {
    Fault::new(Kind::Conflict, format!("\"{}\" has no password: the user cannot open the console", account.login))
        .hint("turnlock:create_login_profile=true opens it, which gives the user more than it has now")
}
