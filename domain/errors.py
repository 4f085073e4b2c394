"""Everything that can be wrong, as one tree.

FacepassError
├── InvalidRequest          what was sent cannot be understood or used
│   ├── InvalidValue            invalid_value
│   ├── InvalidCursor           invalid_cursor
│   ├── IdempotencyKeyReused    idempotency_key_reused
│   ├── TooManyItems            too_many_items
│   ├── PasswordRefused         password_refused
│   ├── WorkspaceUnclear        workspace_unclear
│   ├── LinkInvalid             link_invalid
│   ├── ImageRefused            an image that is not looked at any further
│   │   ├── NotAnImage              not_an_image
│   │   ├── ImageTruncated          image_truncated
│   │   ├── ImageFormatUnsupported  image_format_unsupported
│   │   ├── ImageTooLarge           image_too_large
│   │   └── TooManyPixels           too_many_pixels
│   ├── FaceRefused             an image whose face cannot be used
│   │   ├── FaceNotFound            face_not_found
│   │   ├── MultipleFaces           multiple_faces
│   │   ├── FaceTooSmall            face_too_small
│   │   ├── FaceCutOff              face_cut_off
│   │   ├── LowSharpness            low_sharpness
│   │   ├── LowContrast             low_contrast
│   │   ├── TooDark                 too_dark
│   │   ├── TooBright               too_bright
│   │   ├── ExtremePose             extreme_pose
│   │   └── LowConfidence           low_confidence
│   ├── NothingAccepted         nothing_accepted
│   └── ReceiptInvalid          receipt_invalid
├── NotFound                what was named is not there, or not in this workspace
│   ├── GalleryNotFound         gallery_not_found
│   ├── PersonNotFound          person_not_found
│   ├── ReferenceNotFound       reference_not_found
│   ├── ImageNotKept            image_not_kept
│   ├── MigrationNotFound       migration_not_found
│   ├── JobNotFound             job_not_found
│   ├── WorkspaceNotFound       workspace_not_found
│   ├── UserNotFound            user_not_found
│   ├── MemberNotFound          member_not_found
│   ├── InvitationNotFound      invitation_not_found
│   ├── SessionNotFound         session_not_found
│   └── ApiKeyNotFound          api_key_not_found
├── Conflict                what was asked contradicts what is there
│   ├── GalleryNameTaken        gallery_name_taken
│   ├── ExternalIdTaken         external_id_taken
│   ├── GalleryKept             gallery_kept
│   ├── PersonMerged            person_merged
│   ├── SpaceMismatch           space_mismatch
│   ├── SpaceNotServed          space_not_served
│   ├── SpaceInUse              space_in_use
│   ├── MigrationRunning        migration_running
│   ├── MigrationUnfinished     migration_unfinished
│   ├── ReferencesLeftBehind    references_left_behind
│   ├── ThresholdFixed          threshold_fixed
│   ├── VersionMismatch         version_mismatch
│   ├── JobEnded                job_ended
│   ├── EmailTaken              email_taken
│   ├── WorkspaceNameTaken      workspace_name_taken
│   ├── MemberExists            member_exists
│   ├── LastOwner               last_owner
│   ├── LastAdministrator       last_administrator
│   └── ApiKeyRevoked           api_key_revoked
├── Refused                 who asks may not
│   ├── CredentialMissing       credential_missing
│   ├── CredentialInvalid       credential_invalid
│   ├── LoginFailed             login_failed
│   ├── ScopeMissing            scope_missing
│   ├── RoleMissing             role_missing
│   ├── AdministratorOnly       administrator_only
│   └── RegistrationClosed      registration_closed
├── Exhausted               too often: `retry_after` says when it may be tried again
│   ├── RateLimited             rate_limited
│   └── TooManyAttempts         too_many_attempts
├── PackError               a model pack cannot be used
│   ├── UnknownPack             unknown_pack
│   ├── PackMissing             pack_missing
│   ├── PackCorrupt             pack_corrupt
│   ├── PackUnavailable         pack_unavailable
│   ├── PackNotCommercial       pack_not_commercial
│   └── PackUncalibrated        pack_uncalibrated
├── CannotOpen              cannot_open
├── LedgerUnreadable        ledger_unreadable
└── PortError               what a port raises (`application.ports.errors`)
"""

from collections.abc import Sequence
from typing import ClassVar


class FacepassError(Exception):
    """The root. Every leaf has one stable `code`, which clients may build on; messages may change."""

    code: ClassVar[str] = ""

    def __init__(self, message: str) -> None:
        """Take a sentence that says what is wrong and, where there is one, the way out."""
        super().__init__(message)
        self.message = message


class InvalidRequest(FacepassError):
    """What was sent cannot be understood or used."""


class InvalidValue(InvalidRequest):
    """A field holds something that it may not hold."""

    code = "invalid_value"

    def __init__(self, message: str, *, field: str) -> None:
        """Name the field as the client wrote it (`policy.target_fmr`)."""
        super().__init__(message)
        self.field = field


class InvalidCursor(InvalidRequest):
    """The cursor is not one of ours, or belongs to another list."""

    code = "invalid_cursor"


class IdempotencyKeyReused(InvalidRequest):
    """The idempotency key came before, with another body."""

    code = "idempotency_key_reused"


class TooManyItems(InvalidRequest):
    """More items than one call may hold."""

    code = "too_many_items"


class PasswordRefused(InvalidRequest):
    """The password is too short, too long, or among the commonest."""

    code = "password_refused"

    def __init__(self, message: str, *, field: str = "password") -> None:
        """Name the field as the client wrote it (`new_password`)."""
        super().__init__(message)
        self.field = field


class WorkspaceUnclear(InvalidRequest):
    """A user of several workspaces, or of none, has not said which one is meant."""

    code = "workspace_unclear"


class LinkInvalid(InvalidRequest):
    """The one-time link is unknown, expired, or was used: which of these is not told."""

    code = "link_invalid"


class ImageRefused(InvalidRequest):
    """An image that is not looked at any further."""


class NotAnImage(ImageRefused):
    """The bytes are not an image, or there are none."""

    code = "not_an_image"


class ImageTruncated(ImageRefused):
    """The image begins well and does not end, or is damaged inside."""

    code = "image_truncated"


class ImageFormatUnsupported(ImageRefused):
    """An image, but none of JPEG, PNG and WebP."""

    code = "image_format_unsupported"


class ImageTooLarge(ImageRefused):
    """More bytes than an image may have."""

    code = "image_too_large"


class TooManyPixels(ImageRefused):
    """More pixels than an image may have; known from its header, before decoding."""

    code = "too_many_pixels"


class FaceRefused(InvalidRequest):
    """An image whose face cannot be used."""


class FaceNotFound(FaceRefused):
    """No face where one is needed."""

    code = "face_not_found"


class MultipleFaces(FaceRefused):
    """Several faces where exactly one is wanted."""

    code = "multiple_faces"


class FaceTooSmall(FaceRefused):
    """Too few pixels between the eyes."""

    code = "face_too_small"


class FaceCutOff(FaceRefused):
    """Too much of the face lies beyond the edge of the image."""

    code = "face_cut_off"


class LowSharpness(FaceRefused):
    """Blurred, or enlarged from too few pixels."""

    code = "low_sharpness"


class LowContrast(FaceRefused):
    """Too flat: fog, veil, washed out."""

    code = "low_contrast"


class TooDark(FaceRefused):
    """Under-exposed."""

    code = "too_dark"


class TooBright(FaceRefused):
    """Over-exposed."""

    code = "too_bright"


class ExtremePose(FaceRefused):
    """Turned too far away from the camera."""

    code = "extreme_pose"


class LowConfidence(FaceRefused):
    """The detector is not sure that this is a face."""

    code = "low_confidence"


class NothingAccepted(InvalidRequest):
    """Several images were sent and none could be enrolled; `rejected` says why, image by image."""

    code = "nothing_accepted"

    def __init__(self, message: str, *, rejected: Sequence[object]) -> None:
        """Take the rejections in the order of the images (`domain.enrolment.Rejection`)."""
        super().__init__(message)
        self.rejected = tuple(rejected)


class ReceiptInvalid(InvalidRequest):
    """A receipt that this installation did not sign, or that somebody changed."""

    code = "receipt_invalid"


class NotFound(FacepassError):
    """What was named is not there, or is another workspace's: the two cannot be told apart."""


class GalleryNotFound(NotFound):
    """No such gallery in this workspace."""

    code = "gallery_not_found"


class PersonNotFound(NotFound):
    """No such person in this gallery."""

    code = "person_not_found"


class ReferenceNotFound(NotFound):
    """No such reference in this gallery."""

    code = "reference_not_found"


class ImageNotKept(NotFound):
    """The reference is there, but its image was not kept."""

    code = "image_not_kept"


class MigrationNotFound(NotFound):
    """The gallery is not on its way from one model to another."""

    code = "migration_not_found"


class JobNotFound(NotFound):
    """No such job in this workspace."""

    code = "job_not_found"


class WorkspaceNotFound(NotFound):
    """No such workspace, or none of the caller's."""

    code = "workspace_not_found"


class UserNotFound(NotFound):
    """No such user."""

    code = "user_not_found"


class MemberNotFound(NotFound):
    """No such member in this workspace."""

    code = "member_not_found"


class InvitationNotFound(NotFound):
    """No such invitation to this workspace that can still be used."""

    code = "invitation_not_found"


class SessionNotFound(NotFound):
    """The user has no such session."""

    code = "session_not_found"


class ApiKeyNotFound(NotFound):
    """No such API key in this workspace."""

    code = "api_key_not_found"


class Conflict(FacepassError):
    """What was asked contradicts what is there."""


class GalleryNameTaken(Conflict):
    """The workspace has a gallery of that name."""

    code = "gallery_name_taken"


class ExternalIdTaken(Conflict):
    """The gallery has a person of that `external_id`."""

    code = "external_id_taken"


class GalleryKept(Conflict):
    """This gallery cannot be deleted: it is the default one, or people are in it."""

    code = "gallery_kept"


class PersonMerged(Conflict):
    """The person was merged into another one, or is not merged where it should be."""

    code = "person_merged"


class SpaceMismatch(Conflict):
    """The vector or gallery belongs to another embedding space; spaces are never compared."""

    code = "space_mismatch"


class SpaceNotServed(Conflict):
    """No model of this service makes embeddings of the space that was named."""

    code = "space_not_served"


class SpaceInUse(Conflict):
    """The gallery is in the embedding space already that it is to move to."""

    code = "space_in_use"


class MigrationRunning(Conflict):
    """A job is moving this gallery at the moment."""

    code = "migration_running"


class MigrationUnfinished(Conflict):
    """The gallery still has templates of a third embedding space: that migration is to be finished first."""

    code = "migration_unfinished"


class ReferencesLeftBehind(Conflict):
    """Some references could not follow to the other model, and nobody said that they may be left behind."""

    code = "references_left_behind"


class ThresholdFixed(Conflict):
    """The gallery's policy has a fixed threshold, which means nothing to another model."""

    code = "threshold_fixed"


class VersionMismatch(Conflict):
    """`If-Match` names a version that is not the current one."""

    code = "version_mismatch"


class JobEnded(Conflict):
    """The job has ended: there is nothing left to cancel."""

    code = "job_ended"


class EmailTaken(Conflict):
    """There is a user of that email address."""

    code = "email_taken"


class WorkspaceNameTaken(Conflict):
    """There is a workspace of that name."""

    code = "workspace_name_taken"


class MemberExists(Conflict):
    """The user is a member already."""

    code = "member_exists"


class LastOwner(Conflict):
    """A workspace keeps at least one owner."""

    code = "last_owner"


class LastAdministrator(Conflict):
    """An installation keeps at least one administrator."""

    code = "last_administrator"


class ApiKeyRevoked(Conflict):
    """The API key was revoked or has expired: it cannot be rotated."""

    code = "api_key_revoked"


class Refused(FacepassError):
    """Who asks may not."""


class CredentialMissing(Refused):
    """No credential came with the call."""

    code = "credential_missing"


class CredentialInvalid(Refused):
    """The credential is unknown, expired, revoked or forged: which of these is not told."""

    code = "credential_invalid"


class LoginFailed(Refused):
    """The email address or the password is wrong, or the account cannot sign in: which of these is not told."""

    code = "login_failed"


class ScopeMissing(Refused):
    """The API key is good, but lacks the scope for this."""

    code = "scope_missing"


class RoleMissing(Refused):
    """The user is a member, and their role does not allow this."""

    code = "role_missing"


class AdministratorOnly(Refused):
    """The user is signed in, and no instance administrator."""

    code = "administrator_only"


class RegistrationClosed(Refused):
    """Nobody can register here, or only with an invitation."""

    code = "registration_closed"


class Exhausted(FacepassError):
    """Too often."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        """Take the seconds after which another try makes sense."""
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Exhausted):
    """More calls than the key, the user or the address may make."""

    code = "rate_limited"


class TooManyAttempts(Exhausted):
    """Too many failed logins for this account; the lock grows with each further one."""

    code = "too_many_attempts"


class PackError(FacepassError):
    """A model pack cannot be used."""


class UnknownPack(PackError):
    """No pack of that name."""

    code = "unknown_pack"


class PackMissing(PackError):
    """The pack is known but not in the cache."""

    code = "pack_missing"


class PackCorrupt(PackError):
    """A file of the pack is not what was recorded when it was made."""

    code = "pack_corrupt"


class PackUnavailable(PackError):
    """The pack could not be fetched or built."""

    code = "pack_unavailable"


class PackNotCommercial(PackError):
    """The pack's licence forbids commercial use, and the operator asked for commercial packs only."""

    code = "pack_not_commercial"


class PackUncalibrated(PackError):
    """The pack has no calibration curve, so no threshold follows from a target error rate."""

    code = "pack_uncalibrated"


class CannotOpen(FacepassError):
    """A ciphertext does not open: another key, another row, or changed bytes."""

    code = "cannot_open"


class LedgerUnreadable(FacepassError):
    """The ledger of erasures holds what this installation did not write: who was erased must not come back by that."""

    code = "ledger_unreadable"


class PortError(FacepassError):
    """What a port raises; its leaves stand in `application.ports.errors`."""


def leaves(root: type[FacepassError] = FacepassError) -> list[type[FacepassError]]:
    """Every error that can be raised: the classes below `root` that have no subclass of their own."""
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]
