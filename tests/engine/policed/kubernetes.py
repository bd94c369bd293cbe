"""A provider that takes whatever it is given and keeps it nowhere."""

import sys

from pulumi.provider.experimental import provider as p
from pulumi.provider.experimental.server import main


class Anything(p.Provider):
    async def check(self, request):
        return p.CheckResponse(inputs=request.new_inputs)

    async def diff(self, request):
        return p.DiffResponse(changes=request.old_state != request.new_inputs)

    async def create(self, request):
        return p.CreateResponse(request.urn.rpartition("::")[2], request.properties)

    async def update(self, request):
        return p.UpdateResponse(request.news)

    async def delete(self, request):
        return None


main(sys.argv[1:], "4.34.2", Anything())
