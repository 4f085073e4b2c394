"""What can be done, put together from ports by their types."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from dishka import AsyncContainer, Provider, Scope, provide, provide_all

from application.ports.clock import Clock
from application.ports.job_queue import JobQueue
from application.use_cases.audit.export_audit import ExportAudit
from application.use_cases.audit.read_audit import ReadAudit
from application.use_cases.audit.verify_audit import VerifyAudit
from application.use_cases.evaluation.calibrate import Calibrate
from application.use_cases.evaluation.evaluate import Evaluate
from application.use_cases.galleries.create_gallery import CreateGallery
from application.use_cases.galleries.delete_gallery import DeleteGallery
from application.use_cases.galleries.get_gallery import GetGallery
from application.use_cases.galleries.list_galleries import ListGalleries
from application.use_cases.galleries.move_gallery import MoveGallery
from application.use_cases.galleries.update_gallery import UpdateGallery
from application.use_cases.idempotency import RememberedAnswers
from application.use_cases.jobs.abandon_bulk_enrolments import AbandonBulkEnrolments
from application.use_cases.jobs.cancel_job import CancelJob
from application.use_cases.jobs.change_job import ChangeJob
from application.use_cases.jobs.get_job import GetJob
from application.use_cases.jobs.handlers import JobHandlers
from application.use_cases.jobs.list_jobs import ListJobs
from application.use_cases.jobs.run_job import RunJob
from application.use_cases.jobs.start_job import StartJob
from application.use_cases.jobs.sweep_jobs import SweepJobs
from application.use_cases.jobs.watch_job import WatchJob
from application.use_cases.keys.authenticate import Authenticate
from application.use_cases.keys.authenticate_user import AuthenticateUser
from application.use_cases.keys.bootstrap import Bootstrap
from application.use_cases.keys.create_api_key import CreateApiKey
from application.use_cases.keys.get_api_key import GetApiKey
from application.use_cases.keys.issue_key import IssueKey
from application.use_cases.keys.list_api_keys import ListApiKeys
from application.use_cases.keys.revoke_api_key import RevokeApiKey
from application.use_cases.keys.rotate_api_key import RotateApiKey
from application.use_cases.keys.rotate_master_key import RetireMasterKey, RotateMasterKey
from application.use_cases.matching.compare_faces import CompareFaces
from application.use_cases.matching.detect_faces import DetectFaces
from application.use_cases.matching.embed_faces import EmbedFaces
from application.use_cases.matching.search_faces import SearchFaces
from application.use_cases.matching.verify_face import VerifyFace
from application.use_cases.people.create_person import CreatePerson
from application.use_cases.people.delete_person import DeletePerson
from application.use_cases.people.get_person import GetPerson
from application.use_cases.people.list_people import ListPeople
from application.use_cases.people.merge_people import MergePeople
from application.use_cases.people.unmerge_people import UnmergePeople
from application.use_cases.people.update_person import UpdatePerson
from application.use_cases.references.delete_reference import DeleteReference
from application.use_cases.references.enrol_batch import EnrolBatch
from application.use_cases.references.enrol_bulk import EnrolBulk
from application.use_cases.references.enrol_references import EnrolReferences
from application.use_cases.references.get_reference import GetReference
from application.use_cases.references.list_references import ListReferences
from application.use_cases.references.note_stray_images import NoteStrayImages
from application.use_cases.references.read_image import ReadImage
from application.use_cases.references.reconcile import Reconcile
from application.use_cases.upkeep.compare_decisions import CompareDecisions
from application.use_cases.upkeep.compare_indexes import CompareIndexes
from application.use_cases.upkeep.drop_index import DropIndex
from application.use_cases.upkeep.fill_index import FillIndex
from application.use_cases.upkeep.mend_index import MendIndex
from application.use_cases.upkeep.move_index import MoveIndex
from application.use_cases.upkeep.rebuild_index import RebuildIndex
from application.use_cases.upkeep.rekey_gallery import RekeyGallery
from application.use_cases.upkeep.repair import Repair
from application.use_cases.upkeep.show_indexes import ShowIndexes
from application.use_cases.upkeep.verify_index import VerifyIndex
from application.use_cases.upkeep.write_index import WriteIndex
from application.use_cases.workspaces.add_member import AddMember
from application.use_cases.workspaces.change_member import ChangeMember
from application.use_cases.workspaces.create_workspace import CreateWorkspace
from application.use_cases.workspaces.get_workspace import GetWorkspace
from application.use_cases.workspaces.invite_member import InviteMember
from application.use_cases.workspaces.list_invitations import ListInvitations
from application.use_cases.workspaces.list_members import ListMembers
from application.use_cases.workspaces.list_workspaces import ListWorkspaces
from application.use_cases.workspaces.new_workspace import NewWorkspace
from application.use_cases.workspaces.remove_member import RemoveMember
from application.use_cases.workspaces.update_workspace import UpdateWorkspace
from application.use_cases.workspaces.withdraw_invitation import WithdrawInvitation
from domain.job import Job, JobWork

log = structlog.get_logger("facepass.jobs")


class UseCaseProvider(Provider):
    """Those that only read are made once; those that write are made for each unit of work."""

    reading = provide_all(
        Authenticate,
        AuthenticateUser,
        CompareFaces,
        DetectFaces,
        EmbedFaces,
        GetGallery,
        ReadAudit,
        VerifyAudit,
        SearchFaces,
        VerifyFace,
        VerifyIndex,
        CompareDecisions,
        ShowIndexes,
        Evaluate,
        Calibrate,
        scope=Scope.APP,
    )
    writing = provide_all(
        RememberedAnswers,
        Reconcile,
        Bootstrap,
        RotateMasterKey,
        RetireMasterKey,
        IssueKey,
        CreateApiKey,
        ListApiKeys,
        GetApiKey,
        RotateApiKey,
        RevokeApiKey,
        NewWorkspace,
        CreateWorkspace,
        ListWorkspaces,
        GetWorkspace,
        UpdateWorkspace,
        ListMembers,
        AddMember,
        ChangeMember,
        RemoveMember,
        InviteMember,
        ListInvitations,
        WithdrawInvitation,
        CreateGallery,
        ListGalleries,
        UpdateGallery,
        DeleteGallery,
        CreatePerson,
        GetPerson,
        ListPeople,
        UpdatePerson,
        DeletePerson,
        MergePeople,
        UnmergePeople,
        EnrolReferences,
        ListReferences,
        GetReference,
        ReadImage,
        DeleteReference,
        NoteStrayImages,
        MendIndex,
        RebuildIndex,
        RekeyGallery,
        WriteIndex,
        FillIndex,
        CompareIndexes,
        MoveIndex,
        DropIndex,
        StartJob,
        AbandonBulkEnrolments,
        ChangeJob,
        CancelJob,
        ExportAudit,
        GetJob,
        ListJobs,
        SweepJobs,
        Repair,
        scope=Scope.REQUEST,
    )

    @provide(scope=Scope.APP)
    def enrol_batch(self, container: AsyncContainer) -> EnrolBatch:
        """Give each item of a batch a unit of work of its own."""

        @asynccontextmanager
        async def enrolment() -> AsyncIterator[EnrolReferences]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(EnrolReferences)

        return EnrolBatch(enrolment=enrolment)

    @provide(scope=Scope.APP)
    def job_handlers(self, move_gallery: MoveGallery, enrol_bulk: EnrolBulk) -> JobHandlers:
        """Say who does which kind of job."""
        return JobHandlers({JobWork.GALLERY_MIGRATION: move_gallery, JobWork.BULK_ENROLMENT: enrol_bulk})

    @provide(scope=Scope.APP)
    def run_job(self, container: AsyncContainer, handlers: JobHandlers, queue: JobQueue, clock: Clock) -> RunJob:
        """Give each change of a job a unit of work of its own, beside those of its handler."""

        @asynccontextmanager
        async def changing() -> AsyncIterator[ChangeJob]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(ChangeJob)

        return RunJob(handlers=handlers, scope=changing, queue=queue, clock=clock, unexpected=_unexpected)

    @provide(scope=Scope.APP)
    def watch_job(self, container: AsyncContainer) -> WatchJob:
        """Give each look at a job a unit of work of its own: a client may watch for minutes."""

        @asynccontextmanager
        async def showing() -> AsyncIterator[GetJob]:
            async with container(scope=Scope.REQUEST) as unit:
                yield await unit.get(GetJob)

        return WatchJob(scope=showing)


def _unexpected(job: Job, error: BaseException) -> None:
    log.error("job_error", job=str(job.id), kind=job.kind.value, exc_info=error)
