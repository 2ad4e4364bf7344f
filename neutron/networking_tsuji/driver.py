#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.
# ruff: noqa: I001  (the order of imports is OpenStack's)
"""The service provider of Tsuji's routers under ML2/OVN's router flavors.

Neutron makes one object in each of its processes and sends every one of them
the events of all routers, plain OVN routers and other providers' included.
So each receiver asks first whether the router's flavor names this driver.
The provider association can't be asked: when a router has been deleted it is
gone already. Nothing is remembered here: the next event may reach another
process.

What it does so far: it says in the log what it saw.
"""

from neutron.services.l3_router.service_providers import base
from neutron_lib.callbacks import events
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib import constants
from neutron_lib import exceptions
from neutron_lib.plugins import constants as plugin_constants
from neutron_lib.plugins import directory
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

# What a service profile must name as its driver.
PATH = 'networking_tsuji.driver.TsujiDriver'


@registry.has_registry_receivers
class TsujiDriver(base.L3ServiceProvider):
    """A Neutron L3 service provider: routers that are nodes of their own."""

    # Whether a router is a pair follows from its flavor, not from `--ha`.
    ha_support = base.OPTIONAL
    distributed_support = base.UNSUPPORTED

    def __init__(self, l3_plugin):
        super().__init__(l3_plugin)
        LOG.info('Tsuji driver loaded')

    @staticmethod
    def _is_ours(context, flavor_id):
        """Whether a router flavor names this driver."""
        if not flavor_id or flavor_id is constants.ATTR_NOT_SPECIFIED:
            return False
        plugin = directory.get_plugin(plugin_constants.FLAVORS)
        try:
            provider = plugin.get_flavor_next_provider(context.elevated(),
                                                       flavor_id)[0]
        except (exceptions.NotFound, exceptions.ServiceUnavailable):
            # The flavor or its profile is gone or disabled.
            return False
        return provider['driver'] == PATH

    def _our_router(self, context, router_id):
        """The router with this id if it is ours, else None."""
        try:
            router = self.l3plugin.get_router(context.elevated(), router_id)
        except exceptions.NotFound:
            return None
        return router if self._is_ours(context, router['flavor_id']) else None

    @registry.receives(resources.ROUTER,
                       [events.AFTER_CREATE, events.AFTER_UPDATE,
                        events.AFTER_DELETE])
    def _router_changed(self, resource, event, trigger, payload):
        router = payload.latest_state
        if not self._is_ours(payload.context, router.get('flavor_id')):
            return
        LOG.info('Tsuji router %(id)s of project %(project)s: %(event)s',
                 {'id': payload.resource_id, 'project': router['project_id'],
                  'event': event})

    @registry.receives(resources.ROUTER_INTERFACE,
                       [events.AFTER_CREATE, events.AFTER_DELETE])
    def _interface_changed(self, resource, event, trigger, payload):
        router = self._our_router(payload.context, payload.resource_id)
        if not router:
            return
        port = payload.metadata.get('port')
        LOG.info('Tsuji router %(id)s interface %(port)s: %(event)s',
                 {'id': router['id'], 'port': port['id'], 'event': event})

    @registry.receives(resources.ROUTER_GATEWAY,
                       [events.AFTER_CREATE, events.AFTER_DELETE])
    def _gateway_changed(self, resource, event, trigger, payload):
        router = self._our_router(payload.context, payload.resource_id)
        if not router:
            return
        LOG.info('Tsuji router %(id)s gateway on network %(net)s: %(event)s',
                 {'id': router['id'], 'event': event,
                  'net': payload.metadata.get('network_id')})
