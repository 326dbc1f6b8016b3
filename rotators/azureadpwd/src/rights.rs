//! What an application may do, told by its token, and what it needs
//! (Microsoft: "Update user", "Microsoft Entra built-in roles").

use turnlock_kit::{Finding, MayRotate, Severity};

use crate::Reset;
use crate::token::Claims;

/// A role in the directory: its id, its name, and what it is to us.
struct Role(&'static str, &'static str, Reach);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It resets passwords, of some users at least.
    Resets,
    /// It resets passwords, and far more.
    RulesAll,
    /// Nothing to do with passwords, and powerful.
    Powerful,
}

const ROLES: &[Role] = &[
    Role("fe930be7-5e62-47db-91af-98c3a49a38b1", "User Administrator", Reach::Resets),
    Role("7be44c8a-adaf-4e2a-84d6-ab2649e08a13", "Privileged Authentication Administrator", Reach::Resets),
    Role("c4e39bd9-1100-46d3-8c65-fb160da0071f", "Authentication Administrator", Reach::Resets),
    Role("966707d0-3269-4727-9be2-8c3a10f19b9d", "Password Administrator", Reach::Resets),
    Role("729827e3-9c14-49f7-bb1b-9608f156bbb8", "Helpdesk Administrator", Reach::Resets),
    Role("62e90394-69f5-4237-9190-012177145e10", "Global Administrator", Reach::RulesAll),
    Role("e8611ab8-c189-46e8-94e1-60213ab1f814", "Privileged Role Administrator", Reach::Powerful),
    Role("9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3", "Application Administrator", Reach::Powerful),
    Role("158c047a-c907-4556-b7ef-446551a6b5f7", "Cloud Application Administrator", Reach::Powerful),
    Role("8ac3fc64-6eca-42ea-9e69-59f4c7b60eb2", "Hybrid Identity Administrator", Reach::Powerful),
    Role("194ae4cb-b126-40b2-bd5b-6091b380977d", "Security Administrator", Reach::Powerful),
];

/// Permissions that a reset may be made with, the least first.
fn permissions(reset: Reset) -> &'static [&'static str] {
    match reset {
        Reset::Profile => &["User-PasswordProfile.ReadWrite.All", "User.ReadWrite.All", "Directory.ReadWrite.All"],
        Reset::AuthenticationMethods => {
            &["UserAuthenticationMethod.ReadWrite.All", "UserAuthMethod-Password.ReadWrite.All"]
        }
    }
}

/// What to grant, for whoever may.
pub(crate) fn missing(reset: Reset) -> String {
    let permission = permissions(reset).first().copied().unwrap_or_default();
    format!(
        "grant the application the permission {permission} with admin consent, and the directory role User Administrator; \
         for an administrator's password Privileged Authentication Administrator"
    )
}

/// Whether the token's bearer may reset, and what people should know of it.
pub(crate) fn judge(claims: Option<&Claims>, reset: Reset) -> (MayRotate, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut find = |severity, message: String| findings.push(Finding { severity, message });
    let Some(claims) = claims else {
        find(Severity::Info, "the token does not tell what the application may do".to_owned());
        return (MayRotate::Unknown, findings);
    };
    let held: Vec<&Role> =
        ROLES.iter().filter(|role| claims.wids.iter().any(|id| id.eq_ignore_ascii_case(role.0))).collect();
    let names = |held: &[&str]| if held.is_empty() { "none".to_owned() } else { held.join(", ") };
    let roles: Vec<&str> = claims.roles.iter().map(String::as_str).collect();
    let directory: Vec<&str> = held.iter().map(|role| role.1).collect();
    find(
        Severity::Info,
        format!(
            "the application's permissions: {}; known roles in the directory: {}",
            names(&roles),
            names(&directory)
        ),
    );
    let permitted = roles.iter().any(|role| permissions(reset).contains(role));
    let entitled = held.iter().any(|role| role.2 != Reach::Powerful);
    let may = match (permitted, entitled) {
        (true, true) => MayRotate::Yes,
        (false, false) => {
            find(Severity::Error, format!("the application may not reset passwords: {}", missing(reset)));
            MayRotate::No
        }
        (true, false) | (false, true) => {
            let what = if permitted { "role in the directory" } else { "permission" };
            find(
                Severity::Warning,
                format!("the application has no known {what} to reset passwords: {}", missing(reset)),
            );
            MayRotate::Unknown
        }
    };
    // Whoever steals its secret has all of this.
    let spare = roles.iter().filter(|role| is_more_than_needed(role, reset));
    let powerful = held.iter().filter(|role| role.2 != Reach::Resets).map(|role| &role.1);
    let more: Vec<&str> = spare.chain(powerful).copied().collect();
    if !more.is_empty() {
        find(
            Severity::Warning,
            format!(
                "the application may do far more than reset passwords: {}; give it an application of its own",
                more.join(", ")
            ),
        );
    }
    (may, findings)
}

/// The least permissions and whatever only reads are no news.
fn is_more_than_needed(permission: &str, reset: Reset) -> bool {
    let least = match reset {
        Reset::Profile => permissions(reset).get(..1),
        Reset::AuthenticationMethods => Some(permissions(reset)),
    };
    let reads = permission.split('.').any(|word| ["Read", "ReadBasic"].contains(&word));
    !reads && !least.is_some_and(|least| least.contains(&permission))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER_ADMINISTRATOR: &str = "fe930be7-5e62-47db-91af-98c3a49a38b1";
    const GLOBAL_ADMINISTRATOR: &str = "62e90394-69f5-4237-9190-012177145e10";

    fn judged(roles: &[&str], wids: &[&str]) -> (MayRotate, String) {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (may, findings) = judge(Some(&Claims { roles: own(roles), wids: own(wids), oid: None }), Reset::Profile);
        (may, findings.into_iter().map(|finding| format!("{:?}: {}\n", finding.severity, finding.message)).collect())
    }

    #[test]
    fn permission_and_role_decide_together() {
        let least = "User-PasswordProfile.ReadWrite.All";
        let (may, told) = judged(&[least, "User.Read.All"], &[USER_ADMINISTRATOR]);
        assert!(may == MayRotate::Yes && !told.contains("Warning"), "{told}");
        let (may, told) = judged(&[least], &[]);
        assert!(
            may == MayRotate::Unknown && told.contains("no known role") && told.contains("User Administrator"),
            "{told}"
        );
        let (may, told) = judged(&[], &[USER_ADMINISTRATOR]);
        assert!(may == MayRotate::Unknown && told.contains(least), "{told}");
        let (may, told) = judged(&["User.Read.All"], &[]);
        assert!(may == MayRotate::No && told.contains(least) && told.contains("User Administrator"), "{told}");
        assert_eq!(judge(None, Reset::Profile).0, MayRotate::Unknown);
    }

    #[test]
    fn far_more_than_needed_is_a_warning() {
        let (may, told) =
            judged(&["Directory.ReadWrite.All", "RoleManagement.ReadWrite.Directory"], &[GLOBAL_ADMINISTRATOR]);
        assert_eq!(may, MayRotate::Yes);
        for much in ["Directory.ReadWrite.All", "RoleManagement.ReadWrite.Directory", "Global Administrator"] {
            let warning = told.lines().find(|line| line.starts_with("Warning")).unwrap();
            assert!(warning.contains("far more") && warning.contains(much), "{told}");
        }
    }
}
