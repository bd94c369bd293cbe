"""A policy pack without an SDK, so that the test needs nothing beside `pulumi` itself."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pulumi
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2 as pb
from pulumi.runtime.proto import analyzer_pb2_grpc, plugin_pb2

stopped = threading.Event()
STACK = pulumi.get_stack()  # known to this thread alone


class Pack(analyzer_pb2_grpc.AnalyzerServicer):
    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="1.0.0")

    def GetAnalyzerInfo(self, request, context):
        policy = pb.PolicyInfo(
            name="long-passwords", description="16 or more", enforcementLevel=pb.MANDATORY
        )
        return pb.AnalyzerInfo(name="engine", version="1.0.0", policies=[policy])

    def Configure(self, request, context):
        return empty_pb2.Empty()

    def Analyze(self, request, context):
        length = request.properties.fields["length"].number_value
        if not request.type.endswith("RandomPassword") or length >= 16:
            return pb.AnalyzeResponse()
        diagnostic = pb.AnalyzeDiagnostic(
            policyName="long-passwords",
            policyPackName="engine",
            policyPackVersion="1.0.0",
            message=f"stack {STACK}: length is {int(length)}, not 16",
            enforcementLevel=pb.MANDATORY,
            urn=request.urn,
        )
        return pb.AnalyzeResponse(diagnostics=[diagnostic])

    def AnalyzeStack(self, request, context):
        return pb.AnalyzeResponse()

    def Remediate(self, request, context):
        return pb.RemediateResponse()

    def Cancel(self, request, context):
        stopped.set()
        return empty_pb2.Empty()


server = grpc.server(ThreadPoolExecutor(4))
analyzer_pb2_grpc.add_AnalyzerServicer_to_server(Pack(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
sys.stdout.write(f"{port}\n")
sys.stdout.flush()
stopped.wait()
