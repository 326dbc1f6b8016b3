use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// One secret text: zeroized when dropped, invisible to `Debug`, without
/// `Display` and without `==`.
///
/// It serializes as its plain text, because the wire and the sealed vault are
/// where secrets belong; everything else has to call [`Secret::expose`], which
/// the workspace's lints allow only with a stated reason.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("writeOnly" = true))]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody. The text is moved, not copied.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret in clear. Each use states why it must see it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether both hold the same text, in time that depends on the length only.
    pub fn same_as(&self, other: &Secret) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A second holder of the same secret. Named so that a reader sees that a
    /// copy is made; there is no `Clone`.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Named secret fields that together open an account, such as
/// `{"password"}` or `{"access_key_id", "secret_access_key"}`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Credential(BTreeMap<String, Secret>);

impl Credential {
    /// A credential without any field.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A credential that is a password and nothing else.
    pub fn password(password: Secret) -> Self {
        Self::empty().with(crate::field::PASSWORD, password)
    }

    /// The same credential with one more field, or with that field replaced.
    #[must_use]
    pub fn with(mut self, name: &str, secret: Secret) -> Self {
        self.0.insert(name.to_owned(), secret);
        self
    }

    /// The secret of that name.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// The same credential with those fields of another one that a rotation
    /// leaves as they are, such as the password of a host to go through: only
    /// together they open the account.
    #[must_use]
    pub fn keeping(mut self, current: &Credential, is_rotated: impl Fn(&str) -> bool) -> Self {
        for (name, secret) in current.fields().filter(|(name, _)| !is_rotated(name)) {
            self.0.entry(name.to_owned()).or_insert_with(|| secret.duplicate());
        }
        self
    }

    /// All fields in the order of their names.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both have the same field names with the same secrets.
    pub fn same_as(&self, other: &Credential) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(name, secret)| other.get(name).is_some_and(|theirs| secret.same_as(theirs)))
    }

    /// A second holder of the same secrets; see [`Secret::duplicate`].
    pub fn duplicate(&self) -> Self {
        Self(self.0.iter().map(|(name, secret)| (name.clone(), secret.duplicate())).collect())
    }
}

impl FromIterator<(String, Secret)> for Credential {
    fn from_iter<T: IntoIterator<Item = (String, Secret)>>(fields: T) -> Self {
        Self(fields.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let credential = Credential::password(Secret::new("canary-7781".into()));
        assert_eq!(format!("{credential:?}"), r#"Credential({"password": Secret(..)})"#);
    }

    #[test]
    fn credentials_are_the_same_only_with_the_same_fields() {
        let one = || Credential::password(Secret::new("a".into()));
        assert!(one().same_as(&one()));
        assert!(!one().same_as(&Credential::password(Secret::new("b".into()))));
        assert!(!one().same_as(&one().with("passphrase", Secret::new("a".into()))));
        assert!(!one().same_as(&Credential::empty()));
    }

    #[test]
    fn what_a_rotation_leaves_alone_stays_with_the_new_secret() {
        let named = |name: &str, text: &str| Credential::empty().with(name, Secret::new(text.into()));
        let current = named("password", "old")
            .with("passphrase", Secret::new("old".into()))
            .with("jump", Secret::new("j".into()));
        let next = named("password", "new").keeping(&current, |name| name != "jump");
        assert!(next.same_as(&named("password", "new").with("jump", Secret::new("j".into()))));
    }
}
