"""What the tests of several laboratories share: the trainings that a laboratory asks for."""

from kdlib import training


def recorded_trainings(patch):
    """A list that grows by each training: by which function, on which images, with which settings."""
    made = []

    def recorded(name):
        function = getattr(training, name)

        def train(student, *rest, **settings):
            made.append((name, rest[-1], settings))
            return function(student, *rest, **settings)

        patch.setattr(training, name, train)

    recorded("train")
    recorded("distill")
    return made
