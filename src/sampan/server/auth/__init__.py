"""Who asks, what they may do, and what they did: authentication, authorization, audit.

who asks           authenticate, tokens (of service accounts), impersonate
what they may      authorize, rbac, node_authorizer, default_roles, escalation (rights nobody may give away)
asked as objects   reviews (TokenReview, SubjectAccessReview and their like)
what they did      audit
"""
