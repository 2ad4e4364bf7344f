"""The one-machine OpenStack: what `lab/lab` and `lab/machine` are made of, usable from tests as Python.

    lab = Lab("lab")              the lab as it stands (instance.py)
    Cloud(lab, "red")             the cloud's REST interfaces as one account (api.py)
    Machine.add(lab, "m1", port)  a namespace bound to a Neutron port (machine.py)
"""
